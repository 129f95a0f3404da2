//! `notifreeze completions` and `notifreeze man`: made from the command line's own definition.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

/// Prints completions.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:

  notifreeze completions bash > ~/.local/share/bash-completion/completions/notifreeze
  notifreeze completions zsh > ~/.zfunc/_notifreeze
  notifreeze completions fish > ~/.config/fish/completions/notifreeze.fish")]
pub(super) struct CompletionsArgs {
    /// Which shell.
    shell: Shell,
}

pub(super) fn run_completions(args: &CompletionsArgs) -> Result<u8, String> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), NAME, &mut script);
    print(&script);
    Ok(crate::EXIT_OK)
}

/// Writes manual pages.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:

  notifreeze man | man -l -              # the one of notifreeze itself
  notifreeze man ~/.local/share/man/man1 # all of them, one a subcommand")]
pub(super) struct ManArgs {
    /// Where to write them; made if it is not there.
    directory: Option<PathBuf>,
}

const NAME: &str = "notifreeze";

pub(super) fn run_man(args: &ManArgs) -> Result<u8, String> {
    let mut command = super::Cli::command();
    command.build();
    let page = |command: &clap::Command| {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(command.clone()).render(&mut page);
        rendered.map(|()| page).map_err(|error| error.to_string())
    };
    let Some(directory) = &args.directory else {
        print(&page(&command)?);
        return Ok(crate::EXIT_OK);
    };
    let failed = |error| format!("{}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(failed)?;
    let write = |name: &str, command: &clap::Command| {
        let path = directory.join(format!("{name}.1"));
        fs::write(&path, page(command)?).map_err(|error| format!("{}: {error}", path.display()))
    };
    write(NAME, &command)?;
    for subcommand in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        if subcommand.get_name() == "help" {
            continue;
        }
        let name = format!("{NAME}-{}", subcommand.get_name());
        write(&name, subcommand)?;
    }
    anstream::println!("{}", directory.display());
    Ok(crate::EXIT_OK)
}

/// Whoever closed our output wants no more of it.
fn print(bytes: &[u8]) {
    let _ = std::io::stdout().write_all(bytes);
}
