//! The program of a command, looked up before anything is done that its absence would spoil.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cr::sys::inspect::xattrs;
use nix::libc;
use nix::unistd::{AccessFlags, access, geteuid};

/// Where execvp(3) looks without PATH.
const PATH: &str = "/bin:/usr/bin";

/// `BINPRM_BUF_SIZE`: what the kernel reads of a file to find its interpreter.
const FIRST: u64 = 256;

/// The file of a program, which may be executed, and so may its interpreter.
pub(super) fn find(name: &OsStr) -> Result<PathBuf, String> {
    let named = |why: &str| format!("{}: {why}", name.display());
    if name.as_bytes().contains(&0) {
        return Err(named("a NUL in the command"));
    }
    let found = if name.as_bytes().contains(&b'/') {
        PathBuf::from(name)
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        let files = std::env::split_paths(&folders).map(|folder| folder.join(name));
        let mut files: Vec<PathBuf> = files.filter(|file| file.is_file()).collect();
        // One that may not be executed is passed over, if there is another.
        files.sort_by_key(|file| refuse(file).is_err());
        files.into_iter().next().ok_or_else(|| named("not found"))?
    };
    refuse(&found).map_err(|why| named(&why))?;
    if let Some(interpreter) = interpreter(&found) {
        refuse(&interpreter).map_err(|why| named(&format!("{}: {why}", interpreter.display())))?;
    }
    Ok(found)
}

/// Whether a program, or an interpreter of it, gives this user rights that it does not give to one who is
/// traced.
pub(super) fn gains_rights(file: &Path) -> bool {
    let first = Some(file.to_owned());
    let mut files = iter::successors(first, |file| interpreter(file)).take(MOST_INTERPRETERS);
    !geteuid().is_root() && files.any(|file| sets_ids(&file) || has_capabilities(&file))
}

fn sets_ids(file: &Path) -> bool {
    const SET_IDS: u32 = libc::S_ISUID | libc::S_ISGID;
    fs::metadata(file).is_ok_and(|found| found.mode() & SET_IDS != 0)
}

fn has_capabilities(file: &Path) -> bool {
    let attributes = xattrs(file).unwrap_or_default();
    let mut names = attributes.iter().map(|(name, _)| name);
    names.any(|name| name == b"security.capability")
}

fn refuse(file: &Path) -> Result<(), String> {
    let found = fs::metadata(file).map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("not a file".to_owned());
    }
    access(file, AccessFlags::X_OK).map_err(|errno| errno.desc().to_owned())
}

/// How many files there are at most on the way to what is run (`exec_binprm`).
const MOST_INTERPRETERS: usize = 6;

/// What a script is run by.
fn interpreter(file: &Path) -> Option<PathBuf> {
    let mut first = Vec::new();
    let file = File::open(file).ok()?;
    file.take(FIRST).read_to_end(&mut first).ok()?;
    let line = first
        .strip_prefix(b"#!")?
        .split(|&byte| byte == b'\n')
        .next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    let word = words.find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_is_found_or_said_not_to_be() {
        assert!(find(OsStr::new("sh")).is_ok());
        assert!(find(OsStr::new("/bin/sh")).is_ok());
        for name in [
            "",
            "no-such-program",
            "/no/such/program",
            "/etc",
            "/etc/passwd",
        ] {
            assert!(find(OsStr::new(name)).is_err(), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        for (interpreter, is_found) in [("/bin/sh", true), ("/no/such/sh", false)] {
            fs::write(&script, format!("#! {interpreter} -e\n")).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(find(script.as_os_str()).is_ok(), is_found, "{interpreter}");
        }
    }
}
