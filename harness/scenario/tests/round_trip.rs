//! Any scenario prints as a text that reads back as the same scenario, and no text makes the
//! reader panic.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use scenario::call::{fcntl, ioctl};
use scenario::{
    Arg, ArgKind, Bytes, Call, Expect, FlagSet, Known, Name, Note, Phase, Requirement, ResultKind,
    Scenario, Step, Time, check_parse, errno, parse, print,
};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_scenario_reads_back_as_printed(scenario in scenario()) {
        let text = print(&scenario);
        let parsed = parse(&text).map_err(|problems| {
            TestCaseError::fail(format!("{problems:?}\n{text}"))
        })?;
        prop_assert_eq!(&parsed.scenario, &scenario, "{}", text);
        prop_assert_eq!(parsed.places.len(), scenario.steps.len());
        check_parse(text.as_bytes());
    }

    #[test]
    fn a_damaged_text_does_no_harm(
        scenario in scenario(),
        damage in vec((any::<prop::sample::Index>(), damage()), 1..6),
    ) {
        let mut text = print(&scenario).into_bytes();
        for (at, damage) in damage {
            let at = at.index(text.len() + 1);
            damage.apply(&mut text, at);
        }
        check_parse(&text);
    }

    #[test]
    fn words_in_any_order_do_no_harm(words in vec(select(WORDS), 0..40)) {
        check_parse(words.concat().as_bytes());
    }
}

/// What the grammar is made of.
const WORDS: &[&str] = &[
    "#",
    " ",
    "\n",
    "\"",
    "\\",
    "\\x",
    "(",
    ")",
    ",",
    "=",
    "-1",
    "ENOENT",
    "0",
    "0644",
    "[",
    "]",
    "{",
    "}",
    "|",
    "p",
    "main",
    "open",
    "fork",
    "checkpoint",
    "requires",
    "known",
    "criu-opts",
    "root",
    "<unfinished ...>",
    "<...",
    "resumed>",
    "O_RDONLY",
    "AT_FDCWD",
    "NULL",
    "makedev",
    "tv_sec",
    "?",
    "é",
    "\r",
    "\t",
    "fcntl",
    "F_SETFL",
    "99999999999999999999",
    "0x",
];

#[derive(Clone, Debug)]
enum Damage {
    Insert(u8),
    Remove,
    Cut,
    Replace(u8),
}

impl Damage {
    fn apply(&self, text: &mut Vec<u8>, at: usize) {
        match self {
            Self::Insert(byte) => text.insert(at, *byte),
            Self::Cut => text.truncate(at),
            Self::Remove if at < text.len() => drop(text.remove(at)),
            Self::Replace(byte) if at < text.len() => text[at] = *byte,
            Self::Remove | Self::Replace(_) => {}
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (0u8..128).prop_map(Damage::Insert),
        Just(Damage::Remove),
        Just(Damage::Cut),
        (0u8..128).prop_map(Damage::Replace),
    ]
}

fn scenario() -> impl Strategy<Value = Scenario> {
    (
        vec(comment(), 1..3),
        proptest::sample::subsequence(
            vec!["root", "fanotify", "kernel>=6.12", "fs:ext4", "queue:16384"],
            0..4,
        ),
        vec(known(), 0..3),
        vec("--[a-z-]{1,10}", 0..3),
        vec(step(), 0..12),
        notes(),
    )
        .prop_map(
            |(summary, requires, known, criu_opts, mut steps, mut tail)| {
                let has_header = !(requires.is_empty() && known.is_empty() && criu_opts.is_empty());
                if let (false, Some(first)) = (has_header, steps.first_mut())
                    && matches!(first.notes.first(), Some(Note::Comment(_)))
                {
                    // Nothing else parts these comments from the summary.
                    first.notes.insert(0, Note::Blank);
                }
                tail.retain(|note| !steps.is_empty() && matches!(note, Note::Comment(_)));
                Scenario {
                    summary,
                    requires: requires
                        .into_iter()
                        .map(|word| Requirement(word.to_owned()))
                        .collect(),
                    known,
                    criu_opts,
                    steps,
                    tail,
                }
            },
        )
}

fn known() -> impl Strategy<Value = Known> {
    let versions = prop_oneof![Just(None), Just(Some("<= 4.1.1".to_owned()))];
    let engine = "[a-z][a-z0-9-]{0,8}";
    (engine, versions, any::<bool>(), ".{0,20}").prop_map(|(engine, versions, races, why)| Known {
        engine,
        versions,
        races,
        why,
    })
}

fn comment() -> impl Strategy<Value = String> {
    "( ?[a-zA-Z0-9\"(){}=#é]{1,8}){0,3}"
}

/// Two blank lines in a row are one.
fn notes() -> impl Strategy<Value = Vec<Note>> {
    let note = prop_oneof![Just(Note::Blank), comment().prop_map(Note::Comment)];
    vec(note, 0..4).prop_map(|mut notes| {
        notes.dedup_by(|a, b| *a == Note::Blank && *b == Note::Blank);
        notes
    })
}

fn step() -> impl Strategy<Value = Step> {
    let call = select(Call::ALL);
    (notes(), proptest::option::of(name()), call)
        .prop_flat_map(|(notes, process, call)| {
            (Just((notes, process, call)), args(call), any::<bool>())
        })
        .prop_flat_map(|((notes, process, call), args, is_unfinished)| {
            let expect = expect(call.result(&args));
            (Just((notes, process, call, args, is_unfinished)), expect)
        })
        .prop_map(|((notes, process, call, args, is_unfinished), expect)| {
            let is_unfinished = is_unfinished && !call.is_bare_word();
            let phase = if is_unfinished {
                Phase::Unfinished
            } else {
                Phase::Whole
            };
            let expect = if is_unfinished {
                Expect::Success
            } else {
                expect
            };
            Step {
                notes,
                process,
                call,
                phase,
                args,
                expect,
            }
        })
}

fn args(call: Call) -> BoxedStrategy<Vec<Arg>> {
    let signature = call.signature();
    let n_args = signature.n_required..=signature.args.len();
    let mut kinds: Vec<_> = signature.args.to_vec();
    let of_command: BoxedStrategy<Option<(Arg, Option<Arg>)>> = match call {
        Call::Fcntl => fcntl_command(),
        Call::Ioctl => ioctl_request(),
        _ => Just(None).boxed(),
    };
    if kinds.last() == Some(&ArgKind::OfCommand) {
        kinds.truncate(1);
    }
    let plain: Vec<_> = kinds.into_iter().map(arg).collect();
    (plain, n_args, of_command)
        .prop_map(move |(mut args, n_args, of_command)| {
            args.truncate(n_args);
            if let Some((command, of_command)) = of_command {
                args.push(command);
                args.extend(of_command);
            }
            complete(call, &mut args);
            args
        })
        .boxed()
}

/// Gives a mode to what creates, and a number to a device.
fn complete(call: Call, args: &mut Vec<Arg>) {
    let flags_at = match call {
        Call::Open => 1,
        Call::Openat => 2,
        Call::Mknod if args.len() == 2 => return args.push(Arg::Device(1, 3)),
        _ => return,
    };
    if args.len() == flags_at + 1 {
        args.push(Arg::Mode(0o644));
    }
}

fn fcntl_command() -> BoxedStrategy<Option<(Arg, Option<Arg>)>> {
    let command = |command| Arg::Flags(FlagSet::Fcntl, command);
    prop_oneof![
        Just(Some((command(fcntl::GETFL), None))),
        arg(ArgKind::Size).prop_map(move |arg| Some((command(fcntl::DUPFD), Some(arg)))),
        arg(ArgKind::Process).prop_map(move |arg| Some((command(fcntl::SETOWN), Some(arg)))),
        arg(ArgKind::Flags(FlagSet::Status))
            .prop_map(move |arg| Some((command(fcntl::SETFL), Some(arg)))),
    ]
    .boxed()
}

fn ioctl_request() -> BoxedStrategy<Option<(Arg, Option<Arg>)>> {
    let request = |request| Arg::Flags(FlagSet::Ioctl, request);
    prop_oneof![
        Just(Some((request(ioctl::FIONREAD), None))),
        arg(ArgKind::Offset)
            .prop_map(move |arg| Some((request(ioctl::INOTIFY_SETNEXTWD), Some(arg)))),
    ]
    .boxed()
}

fn arg(kind: ArgKind) -> BoxedStrategy<Arg> {
    let bytes = || vec(any::<u8>(), 0..12);
    let path = || vec(1u8.., 0..12).prop_map(|bytes| Arg::Bytes(Bytes(bytes)));
    let reference = || prop_oneof![name().prop_map(Arg::Name), (0i64..1000).prop_map(Arg::Int)];
    let null = || Just(Arg::Null);
    match kind {
        ArgKind::Fd | ArgKind::Wd => reference().boxed(),
        ArgKind::DirFd => prop_oneof![reference(), Just(Arg::Cwd)].boxed(),
        ArgKind::Path | ArgKind::Text => path().boxed(),
        ArgKind::PathOrNull | ArgKind::TextOrNull => prop_oneof![path(), null()].boxed(),
        ArgKind::Content => bytes().prop_map(|bytes| Arg::Bytes(Bytes(bytes))).boxed(),
        ArgKind::ContentOrResponse => prop_oneof![
            bytes().prop_map(|bytes| Arg::Bytes(Bytes(bytes))),
            (0u32..40).prop_map(Arg::Response),
        ]
        .boxed(),
        ArgKind::Mode => (0u32..0o10_000).prop_map(Arg::Mode).boxed(),
        ArgKind::FileMode => {
            let types = select(vec![0, 0o010_000, 0o020_000, 0o100_000, 0o140_000]);
            (types, 0u32..0o10_000)
                .prop_map(|(kind, mode)| Arg::Mode(kind | mode))
                .boxed()
        }
        ArgKind::Device => (0u32..0x1000, 0u32..0x10_0000)
            .prop_map(|(major, minor)| Arg::Device(major, minor))
            .boxed(),
        ArgKind::Size => (0..=i64::MAX).prop_map(Arg::Int).boxed(),
        ArgKind::Offset => any::<i64>().prop_map(Arg::Int).boxed(),
        ArgKind::Timeout => Just(Arg::Int(0)).boxed(),
        ArgKind::Choice(set) => {
            let values: Vec<u64> = set.names().map(|(_, value)| value).collect();
            prop_oneof![select(values), 0u64..100]
                .prop_map(move |value| Arg::Flags(set, value))
                .boxed()
        }
        ArgKind::Flags(set) => flags(set)
            .prop_map(move |value| Arg::Flags(set, value))
            .boxed(),
        ArgKind::Process => name().prop_map(Arg::Name).boxed(),
        ArgKind::EpollEvent => prop_oneof![
            (any::<u32>(), any::<u64>())
                .prop_map(|(events, data)| Arg::EpollEvent { events, data }),
            null(),
        ]
        .boxed(),
        ArgKind::Times => prop_oneof![[time(), time()].prop_map(Arg::Times), null()].boxed(),
        ArgKind::OfCommand => unreachable!("resolved by the caller"),
    }
}

fn flags(set: FlagSet) -> BoxedStrategy<u64> {
    match set {
        FlagSet::FanotifyMask | FlagSet::Mount => any::<u64>().boxed(),
        _ => any::<u32>().prop_map(u64::from).boxed(),
    }
}

fn time() -> BoxedStrategy<Time> {
    prop_oneof![
        Just(Time::Now),
        Just(Time::Omit),
        (any::<i64>(), 0u32..1_000_000_000).prop_map(|(sec, nsec)| Time::At { sec, nsec }),
    ]
    .boxed()
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z_][a-z0-9_]{0,5}"
        .prop_filter("words of their own", |name| name != "main")
        .prop_map(Name)
}

fn expect(result: ResultKind) -> BoxedStrategy<Expect> {
    let errors: Vec<i32> = errno::names().map(|(_, number)| number).collect();
    let failure = select(errors).prop_map(Expect::Errno);
    let plain = prop_oneof![Just(Expect::Success), Just(Expect::Any), failure];
    match result {
        ResultKind::Nothing => Just(Expect::Success).boxed(),
        ResultKind::Zero => prop_oneof![plain, (1..=i64::MAX).prop_map(Expect::Value)].boxed(),
        ResultKind::Number => prop_oneof![plain, (0..=i64::MAX).prop_map(Expect::Value)].boxed(),
        ResultKind::Fd | ResultKind::Wd | ResultKind::Process => prop_oneof![
            plain,
            (0..=i64::MAX).prop_map(Expect::Value),
            name().prop_map(Expect::Bind),
        ]
        .boxed(),
    }
}
