//! The command line: one file a subcommand, and here what they share.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Parser, Subcommand};

use crate::diagnostics;
use crate::engine::{Criu, EngineSpec, Flavour};
use crate::report::{self, Results};
use crate::sandbox::{self, inner};
use crate::suite::{Problem, Unreadable};

mod capture;
mod check;
mod completions;
mod dump;
mod explain;
mod fdinfo;
mod fmt;
mod generate;
mod ledger;
mod list;
mod probe;
mod program;
mod record;
mod recover;
mod restore;
mod run;
mod saboteur;
mod show;
mod signals;
mod welcome;

/// Tests checkpoint/restore of inotify and fanotify: what an engine loses, and what it makes up.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios under an engine, compare with the untouched run, and judge.
    Run(Box<run::Args>),
    /// Say what is known to differ, for each scenario and engine, and why.
    Ledger(ledger::Args),
    /// List the scenarios, with what each says must hold.
    List(list::Args),
    /// Say what is wrong with scenarios, each problem in its line.
    Check(check::Args),
    /// Put scenarios into canonical form.
    Fmt(fmt::Args),
    /// Make scenarios by chance, run them, and make one that fails small.
    Generate(generate::Args),
    /// Read a text of `/proc/PID/fdinfo/FD`: the watches and marks of a group.
    Fdinfo(fdinfo::Args),
    /// Say what a live process watches, and what a checkpoint would make of it.
    Explain(explain::Args),
    /// Write down what a live process watches.
    Capture(capture::CaptureArgs),
    /// Say what differs between two captures.
    Compare(capture::CompareArgs),
    /// Make a scenario of what a real program does.
    Record(record::Args),
    /// Say what this machine can do.
    Probe(probe::Args),
    /// Run the suite against every planted defect: what catches it, and the score.
    Saboteur(saboteur::Args),
    /// Write a process, or its groups alone, into an image.
    Dump(dump::Args),
    /// Start a program with the groups of an image.
    Restore(restore::Args),
    /// Give the processes of a dump that was killed their unread events back.
    Recover(recover::Args),
    /// Print an image.
    Show(show::Args),
    /// Print completions for a shell.
    Completions(completions::CompletionsArgs),
    /// Write manual pages.
    Man(completions::ManArgs),
}

/// Which scenarios.
#[derive(Debug, clap::Args)]
struct Selection {
    /// Scenario files, or folders of them.
    #[arg(value_name = "SCENARIO", default_value = "scenarios")]
    scenarios: Vec<PathBuf>,
    /// Only scenarios whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Which CRIU the engine `criu` is.
#[derive(Debug, clap::Args)]
struct CriuArgs {
    /// The CRIU of the engine `criu`; default: the variable CRIU, then `criu` in PATH.
    #[arg(long, value_name = "PROGRAM")]
    criu_bin: Option<PathBuf>,
    /// Where the subject of the engine `criu` lives.
    #[arg(long, value_name = "FLAVOUR", value_enum, default_value_t = Flavour::Host)]
    criu_flavour: Flavour,
}

impl CriuArgs {
    /// An engine, as these have it if it is CRIU.
    fn chosen(&self, engine: &EngineSpec) -> EngineSpec {
        let EngineSpec::Criu(criu) = engine else {
            return engine.clone();
        };
        let criu = match &self.criu_bin {
            Some(program) => Criu::at(program.clone()),
            None => criu.clone(),
        };
        EngineSpec::Criu(Criu {
            flavour: self.criu_flavour,
            ..criu
        })
    }
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    // What runs scenarios takes up no more memory than it must, so it goes around the parser.
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(word) if word == inner::SUBCOMMAND => return inner::main(args),
        Some(word) if word == sandbox::SUBCOMMAND => return sandbox::main(),
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() {
                crate::EXIT_USAGE
            } else {
                crate::EXIT_OK
            };
            // Nothing better can be done about a closed standard error.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let Some(command) = cli.command else {
        return ExitCode::from(welcome::run());
    };
    let result = match command {
        Command::Run(args) => run::run(&args),
        Command::Ledger(args) => ledger::run(&args),
        Command::List(args) => list::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Fmt(args) => fmt::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Capture(args) => capture::run_capture(&args),
        Command::Compare(args) => capture::run_compare(&args),
        Command::Fdinfo(args) => fdinfo::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Saboteur(args) => saboteur::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Recover(args) => recover::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Completions(args) => completions::run_completions(&args),
        Command::Man(args) => completions::run_man(&args),
    };
    // Sandboxes would end without being waited for; so nothing of a run outlives the command.
    let _ = sandbox::settle();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            anstream::eprintln!("error: {message}");
            ExitCode::from(crate::EXIT_USAGE)
        }
    }
}

/// A path of a command line, counted from where the command is started.
fn absolute_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

/// Writes the reports that were asked for, and what GitHub Actions shows.
fn publish(paths: &[PathBuf], results: &Results) -> Result<(), String> {
    for path in paths {
        report::write(path, results)?;
    }
    if let Some(annotations) = report::github::publish(results)? {
        anstream::print!("{annotations}");
    }
    Ok(())
}

/// Prints what is wrong with files that do not parse; the exit code that they call for.
fn report_unreadable(unreadable: &[Unreadable]) -> u8 {
    for file in unreadable {
        match &file.problem {
            Problem::Io(error) => anstream::eprintln!("{}: {error}", file.path.display()),
            Problem::Parse(problems) => {
                anstream::eprintln!("{}", diagnostics::render(&file.path, &file.text, problems));
            }
        }
    }
    if unreadable.is_empty() {
        crate::EXIT_OK
    } else {
        crate::EXIT_USAGE
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn help_has_a_word_about_every_argument() {
        let mut cli = Cli::command();
        cli.build();
        let mut silent = Vec::new();
        for command in cli.get_subcommands() {
            for argument in command.get_arguments() {
                let (command, argument, help) =
                    (command.get_name(), argument.get_id(), argument.get_help());
                if help.is_none() {
                    silent.push(format!("{command}: {argument}"));
                }
            }
        }
        assert_eq!(silent, [""; 0]);
    }

    #[test]
    fn help_shows_how_live_processes_are_asked_about() {
        let mut cli = Cli::command();
        for (name, example) in [
            ("explain", "notifreeze explain 4711 --tree"),
            ("capture", "notifreeze compare before.json after.json"),
            ("compare", "Exit code 0 if nothing differs"),
            ("record", "notifreeze record -o follow.scn -- tail -F log"),
            ("run", "Exit code 0 if nothing is but pass"),
        ] {
            let command = cli.find_subcommand_mut(name).expect("it is there");
            let help = command.render_long_help().to_string();
            assert!(help.contains(example), "{help}");
        }
    }
}
