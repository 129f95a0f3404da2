//! Ghosts that are larger than what who copies them may have in memory: a sparse one of 4 GiB, and
//! one of 64 MiB without a hole.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use cr::{Afterwards, DumpOptions};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const SUBJECT: &str = "be-the-subject";
const DUMPER: &str = "be-the-dumper";
const HEIR: &str = "be-the-heir";

/// Numbers of the subject's ghosts.
const SPARSE: i32 = 10;
const DENSE: i32 = 11;

const SPARSE_SIZE: u64 = 4 << 30;
const DENSE_SIZE: u64 = 64 << 20;
/// Where the sparse one has something.
const PARTS: [(u64, usize); 3] = [(0, 5000), (2 << 30, 3 << 20), (SPARSE_SIZE - 7, 7)];

/// More memory than anybody needs to copy them, and less than the content of the smaller one.
const MOST_MEMORY: u64 = 48 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [SUBJECT, directory] => return subject(Path::new(directory)),
        [DUMPER, pid, directory, limit] => {
            return dumper(
                pid.parse().unwrap(),
                Path::new(directory),
                limit.parse().unwrap(),
            );
        }
        [HEIR, directory] => return heir(Path::new(directory)),
        _ => {}
    }
    let trials = vec![
        Trial::test("large_ghosts_are_copied_piece_by_piece", copy),
        Trial::test("a_ghost_beyond_the_limit_is_refused_by_name", refuse),
        Trial::test("spoiled_content_is_found_before_anything_is_made", spoil),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A byte of the content, by its offset.
fn byte(at: u64) -> u8 {
    at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]
}

fn bytes(from: u64, length: usize) -> Vec<u8> {
    (from..).take(length).map(byte).collect()
}

/// Makes the ghosts, watches one, and stops.
fn subject(directory: &Path) -> ExitCode {
    cr::sys::descriptor::close_range(3, u32::MAX).unwrap();
    let make = |name: &str, number| {
        let path = directory.join(name);
        let options = &mut File::options();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        cr::sys::raw::dup3(file.as_raw_fd(), number, 0).unwrap();
        fs::remove_file(path).unwrap();
        file
    };
    let sparse = make("sparse", SPARSE);
    sparse.set_len(SPARSE_SIZE).unwrap();
    for (at, length) in PARTS {
        sparse.write_all_at(&bytes(at, length), at).unwrap();
    }
    let dense = make("dense", DENSE);
    for at in (0..DENSE_SIZE).step_by(1 << 20) {
        dense.write_all_at(&bytes(at, 1 << 20), at).unwrap();
    }
    drop((sparse, dense));
    for fd in 0..3 {
        let _ = cr::sys::raw::close(fd);
    }
    raise(Signal::SIGSTOP).unwrap();
    ExitCode::SUCCESS
}

fn dumper(pid: i32, directory: &Path, limit: u64) -> ExitCode {
    let options = DumpOptions {
        ghost_limit: limit,
        ..DumpOptions::default()
    };
    let image = directory.join("image");
    match cr::dump_to_file(Pid::from_raw(pid), &image, (&options, Afterwards::Ends)) {
        Ok(_) => end_within_memory(),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Restores, with its own error output kept until then, and compares what it has got.
fn heir(directory: &Path) -> ExitCode {
    let said = directory.join("said");
    if let Err(error) = cr::restore_file(&directory.join("image"), &cr::RestoreOptions::default()) {
        fs::write(said, error.to_string()).unwrap();
        return ExitCode::FAILURE;
    }
    let problem = compare().err();
    let memory = most_memory();
    let text = problem.unwrap_or_else(|| format!("{memory}"));
    fs::write(said, text).unwrap();
    ExitCode::SUCCESS
}

/// The ghosts, in the process that has them at their numbers.
fn compare() -> Result<(), String> {
    let open = |number: i32| {
        let path = format!("/proc/self/fd/{number}");
        let name = fs::read_link(&path).map_err(|error| format!("{path}: {error}"))?;
        if !name.to_string_lossy().ends_with(" (deleted)") {
            return Err(format!("{number} is {}", name.display()));
        }
        File::open(path).map_err(|error| error.to_string())
    };
    let (sparse, dense) = (open(SPARSE)?, open(DENSE)?);
    let size = |file: &File| file.metadata().map(|it| it.len()).unwrap_or(0);
    if (size(&sparse), size(&dense)) != (SPARSE_SIZE, DENSE_SIZE) {
        return Err(format!("sizes {} and {}", size(&sparse), size(&dense)));
    }
    let dense_parts = (0..DENSE_SIZE).step_by(1 << 20).map(|at| (at, 1 << 20));
    let all = PARTS.map(|part| (&sparse, part)).into_iter();
    for (file, (at, length)) in all.chain(dense_parts.map(|part| (&dense, part))) {
        let mut found = vec![0; length];
        file.read_exact_at(&mut found, at)
            .map_err(|error| error.to_string())?;
        if found != bytes(at, length) {
            return Err(format!("other content at {at}"));
        }
    }
    let mut hole = [1; 4096];
    sparse
        .read_exact_at(&mut hole, 1 << 30)
        .map_err(|error| error.to_string())?;
    let blocks = sparse
        .metadata()
        .map_err(|error| error.to_string())?
        .blocks();
    // 3 MiB and a few pages, and what a filesystem needs to tell where they are.
    if hole != [0; 4096] || blocks * 512 > (3 << 20) + (64 << 10) {
        return Err(format!("the holes are filled: {blocks} blocks"));
    }
    Ok(())
}

/// `VmHWM`: most memory that this process ever had.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes.unwrap().trim().parse::<u64>().unwrap() << 10
}

fn end_within_memory() -> ExitCode {
    let memory = most_memory();
    let line = format!("{memory}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    ExitCode::SUCCESS
}

struct Subject {
    child: Child,
    directory: tempfile::TempDir,
}

impl Subject {
    fn start() -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        let child = Command::new(std::env::current_exe()?)
            .args([SUBJECT, directory.path().to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(Self { child, directory }),
            other => Err(format!("the subject did not stop: {other:?}").into()),
        }
    }

    /// What the dumper says, and whether it dumped.
    fn dump(&self, limit: u64) -> Result<(bool, String), Failed> {
        let directory = self.directory.path().to_str().unwrap();
        let output = Command::new(std::env::current_exe()?)
            .args([DUMPER, &self.child.id().to_string(), directory])
            .arg(limit.to_string())
            .output()?;
        let text = if output.status.success() {
            output.stdout
        } else {
            output.stderr
        };
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        Ok((output.status.success(), text))
    }

    fn heir(&self) -> Result<String, Failed> {
        let directory = self.directory.path().to_str().unwrap();
        Command::new(std::env::current_exe()?)
            .args([HEIR, directory])
            .status()?;
        Ok(fs::read_to_string(self.directory.path().join("said"))?)
    }

    /// Names in its directory.
    fn names(&self) -> Result<Vec<String>, Failed> {
        let entries = fs::read_dir(self.directory.path())?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<String>, std::io::Error>>()?;
        names.sort();
        Ok(names)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn within(who: &str, memory: &str) -> Result<(), Failed> {
    let used: u64 = memory.parse().map_err(|_| format!("{who}: {memory}"))?;
    eprintln!("{who}: {} MiB at most", used >> 20);
    if used > MOST_MEMORY {
        return Err(format!("{who} had {} MiB in memory", used >> 20).into());
    }
    Ok(())
}

fn copy() -> Result<(), Failed> {
    let mut subject = Subject::start()?;
    let (dumped, text) = subject.dump(cr::dump::GHOST_LIMIT)?;
    if !dumped {
        return Err(text.into());
    }
    within("the dumper", &text)?;
    let image = subject.directory.path().join("image");
    let size = fs::metadata(&image)?.len();
    let content = DENSE_SIZE + (3 << 20);
    if !(content..content + (1 << 20)).contains(&size) {
        return Err(format!("the image has {size} bytes").into());
    }
    subject.child.kill()?;
    subject.child.wait()?;
    within("the heir", &subject.heir()?)?;
    let names = subject.names()?;
    if names != ["image", "said"] {
        return Err(format!("leftovers: {names:?}").into());
    }
    Ok(())
}

fn refuse() -> Result<(), Failed> {
    let subject = Subject::start()?;
    let (dumped, text) = subject.dump(DENSE_SIZE - 1)?;
    let named = ["fd 11", "dense", "67108864 bytes", "67108863"];
    if dumped || !named.iter().all(|word| text.contains(word)) {
        return Err(format!("dumped: {dumped}, {text}").into());
    }
    if !subject.names()?.is_empty() {
        return Err(format!("leftovers: {:?}", subject.names()?).into());
    }
    Ok(())
}

fn spoil() -> Result<(), Failed> {
    let mut subject = Subject::start()?;
    let (dumped, text) = subject.dump(cr::dump::GHOST_LIMIT)?;
    if !dumped {
        return Err(text.into());
    }
    subject.child.kill()?;
    subject.child.wait()?;
    let image = subject.directory.path().join("image");
    let file = File::options().read(true).write(true).open(&image)?;
    let at = DENSE_SIZE / 2;
    let mut one = [0];
    file.read_exact_at(&mut one, at)?;
    file.write_all_at(&[!one[0]], at)?;
    let said = subject.heir()?;
    if !said.contains("content of ghosts") {
        return Err(format!("it said: {said}").into());
    }
    // The directory has got the answer, and nothing else.
    let names = subject.names()?;
    if names != ["image", "said"] {
        return Err(format!("{names:?}").into());
    }
    Ok(())
}
