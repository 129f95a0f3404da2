//! `notifreeze list`.

use super::Selection;
use crate::suite;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: Selection,
}

pub(super) fn run(args: &Args) -> Result<u8, String> {
    let Selection { scenarios, filter } = &args.selection;
    let (cases, unreadable) = suite::select(scenarios, filter.as_deref())?;
    let width = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
    for case in &cases {
        let sentence = case.scenario.summary.first().map_or("", String::as_str);
        anstream::println!("{:width$}  {sentence}", case.name);
    }
    Ok(super::report_unreadable(&unreadable))
}
