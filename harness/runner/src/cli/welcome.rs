//! What `notifreeze` alone says.

const SCREEN: &str = "\
notifreeze tests what checkpoint/restore does to inotify and fanotify.

Test an engine, in a folder with scenarios (this project's own are in its folder scenarios):
  notifreeze run                        our own engine: what passes, and what differs
  notifreeze run --engine criu          the CRIU in PATH; --criu-bin names another
  notifreeze probe                      what this machine and this user can do

Ask about a process of your own:
  notifreeze explain PID                what it watches, and what a checkpoint would lose
  notifreeze capture PID -o a.json      its watches before a checkpoint, and again after the restore;
  notifreeze compare a.json b.json      what came of them
  notifreeze record -o x.scn -- CMD     a scenario of what a program does, by strace

notifreeze help lists every command, notifreeze help COMMAND explains one.
";

pub(super) fn run() -> u8 {
    anstream::print!("{SCREEN}");
    crate::EXIT_OK
}
