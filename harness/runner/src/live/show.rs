//! An explanation as text for people.

use std::fmt::Write;

use super::explain::{Explanation, Group, GroupKind, Process};
use super::outlook::{Effect, Finding, Outlook};
use super::place::{FoundBy, HandleResult, Name, Target};

/// The whole text.
#[must_use]
pub fn text(explanation: &Explanation) -> String {
    let mut text = String::new();
    for process in &explanation.processes {
        show_process(&mut text, process);
    }
    let watches = |process: &Process| !process.groups.is_empty();
    let kept = match explanation.processes.iter().any(watches) {
        true => "keeps everything",
        false => "there is nothing to keep",
    };
    for outlook in &explanation.engines {
        show_outlook(&mut text, outlook, kept);
    }
    text
}

/// A line of the text; writing to a string cannot fail.
macro_rules! line {
    ($text:expr, $($argument:tt)*) => {
        writeln!($text, $($argument)*).expect("a string takes it")
    };
}

fn show_process(text: &mut String, process: &Process) {
    let (pid, name) = (process.pid, &process.name);
    let line = format!("process {pid} {name}  {}", process.command.join(" "));
    line!(text, "{}", line.trim_end());
    if process.elsewhere {
        line!(
            text,
            "  in another mount namespace or below another root: paths as it sees them"
        );
    }
    if process.groups.is_empty() {
        line!(text, "  no inotify or fanotify group");
    }
    for group in &process.groups {
        show_group(text, group);
    }
    line!(text, "");
}

fn show_group(text: &mut String, group: &Group) {
    let kind = match group.kind {
        GroupKind::Inotify => "inotify",
        GroupKind::Fanotify => "fanotify",
    };
    let unread = match (group.unread_bytes, &group.unread_error) {
        (Some(0), _) => "nothing unread".to_owned(),
        (Some(bytes), _) => format!("{bytes} bytes unread"),
        (None, error) => format!(
            "unread bytes not known: {}",
            error.as_deref().unwrap_or_default()
        ),
    };
    line!(
        text,
        "  fd {}: {kind} {}, {unread}",
        group.fd,
        group.status_flags
    );
    if let Some(flags) = &group.init_flags {
        let event_flags = group.event_flags.as_deref().unwrap_or_default();
        line!(text, "    made with {flags}, event files {event_flags}");
    }
    if !group.shared_with.is_empty() {
        let with = group.shared_with.iter();
        let with: Vec<String> = with
            .map(|sharer| format!("process {} fd {}", sharer.pid, sharer.fd))
            .collect();
        line!(text, "    shared with {}", with.join(", "));
    }
    if group.watches.is_empty() && group.marks.is_empty() {
        line!(text, "    watches nothing");
    }
    for watch in &group.watches {
        line!(text, "    wd {}  {}", watch.wd, name(&watch.target));
        line!(text, "      {}: {}", watch.mask, watch.words);
        line!(text, "      {}", origin(&watch.target));
    }
    for mark in &group.marks {
        let on = mark
            .target
            .as_ref()
            .map_or_else(|| mark.place.clone(), name);
        line!(text, "    {} mark on {on}", mark.on.words());
        line!(
            text,
            "      {} ignored {} flags {}: {}",
            mark.mask,
            mark.ignored_mask,
            mark.flags,
            mark.words
        );
        if let Some(target) = &mark.target {
            line!(text, "      {}", origin(target));
        }
    }
    for unknown in &group.unknown {
        line!(text, "    not understood: {unknown}");
    }
}

fn name(target: &Target) -> String {
    match &target.name {
        Name::Named { paths, .. } => paths.join(" = "),
        Name::Ghost { last_path } => match last_path {
            Some(path) => format!("ghost, was {path}"),
            None => "ghost".to_owned(),
        },
        Name::Hidden { path } => format!("{path}, covered by a mount"),
        Name::NoName { why } => format!("no name: {why}"),
    }
}

fn origin(target: &Target) -> String {
    let filesystem = target.filesystem.as_deref().unwrap_or("unknown filesystem");
    let found = match &target.name {
        Name::Named { found_by, .. } => match found_by {
            FoundBy::Handle => ", found by handle",
            FoundBy::Descriptor => ", found among its open files",
            FoundBy::Mount => ", found among its mounts",
            FoundBy::CommandLine => ", found in its command line",
            FoundBy::Search => ", found by search",
        },
        Name::Ghost { .. } | Name::Hidden { .. } | Name::NoName { .. } => "",
    };
    let handle = match &target.handle {
        None => "no handle shown".to_owned(),
        Some(handle) => {
            let result = match &handle.result {
                HandleResult::Opens => "opens".to_owned(),
                HandleResult::Fails { errno } => format!("does not open: {errno}"),
            };
            format!("handle type {} ({}) {result}", handle.kind, handle.content)
        }
    };
    format!(
        "{filesystem} {} inode {}{found}; {handle}",
        target.device, target.inode
    )
}

/// `kept`: how to say that nothing was found.
fn show_outlook(text: &mut String, outlook: &Outlook, kept: &str) {
    let version = outlook.version.as_deref();
    let version = version.map_or_else(String::new, |version| format!(" {version}"));
    let verdict = match outlook.findings.iter().map(|finding| finding.effect).min() {
        None => kept,
        Some(Effect::DumpFails) => "the dump fails",
        Some(Effect::RestoreFails) => "the restore fails",
        Some(Effect::Lost) => "works, with losses",
        Some(Effect::MayBeLost) => "works, perhaps with losses",
    };
    line!(text, "{}{version}: {verdict}", outlook.engine);
    line!(text, "  {}", outlook.note);
    for finding in &outlook.findings {
        show_finding(text, finding);
    }
}

fn show_finding(text: &mut String, finding: &Finding) {
    let effect = match finding.effect {
        Effect::DumpFails => "dump fails",
        Effect::RestoreFails => "restore fails",
        Effect::Lost => "lost",
        Effect::MayBeLost => "may be lost",
    };
    let fd = finding
        .fd
        .map_or_else(String::new, |fd| format!(" fd {fd}"));
    let object = finding.object.as_deref();
    let object = object.map_or_else(String::new, |object| format!(", {object}"));
    line!(
        text,
        "  {effect}: process {}{fd}{object}: {}",
        finding.pid,
        finding.why
    );
    if let Some(advice) = &finding.advice {
        line!(text, "    advice: {advice}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_keeps_what_is_not_there() {
        let explanation = Explanation {
            processes: vec![Process {
                pid: 2,
                name: "kthreadd".to_owned(),
                command: Vec::new(),
                user: 0,
                elsewhere: false,
                groups: Vec::new(),
            }],
            engines: vec![Outlook {
                engine: "builtin",
                version: None,
                note: "a note".to_owned(),
                findings: Vec::new(),
            }],
            version: super::super::explain::VERSION,
            program: String::new(),
        };
        assert_eq!(
            text(&explanation),
            "process 2 kthreadd\n  no inotify or fanotify group\n\n\
             builtin: there is nothing to keep\n  a note\n"
        );
    }
}
