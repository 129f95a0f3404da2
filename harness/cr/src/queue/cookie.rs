//! The counter that cookies come from (`fsnotify_sync_cookie`): one of the machine, and it only goes
//! up, by one with each rename.
//!
//! In the boot in which a cookie was made the counter has passed it. In another, or on another
//! machine, it may stand before it, and renames on a filesystem of our own bring it there.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use fsnotify::event::inotify::Events;
use fsnotify::inotify::Mask;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknodat};

use super::drain;
use crate::sys::{raw, tmpfs, watch};

/// How far the counter is moved by default: by as many renames as take a second or less.
pub const DISTANCE: u32 = 600_000;

/// Within this of the end it is not looked any more where the counter is: that moves it too.
const LAST: u32 = 64;

const ONE: &CStr = c"1";
const OTHER: &CStr = c"2";
const FROM: &CStr = c"from";
const TO: &CStr = c"to";

/// Brings the counter to where the next rename gets this cookie; whether that was near enough.
///
/// Others may rename at the same time. Then it is tried from where the counter is by then, until it
/// is past.
pub(super) fn approach(wanted: u32, most: u32) -> Result<bool, Errno> {
    if most == 0 {
        return Ok(false);
    }
    let counter = Counter::new()?;
    loop {
        let distance = wanted.wrapping_sub(counter.next()?);
        if distance > most {
            return Ok(false);
        }
        if distance <= LAST {
            counter.advance(distance)?;
            return Ok(true);
        }
        counter.advance(distance - LAST / 2)?;
    }
}

/// A directory of our own, with two files to rename, and a group that hears what cookie that gives.
struct Counter {
    room: OwnedFd,
    group: OwnedFd,
}

impl Counter {
    fn new() -> Result<Self, Errno> {
        let room = tmpfs::detached()?;
        for name in [ONE, OTHER] {
            mknodat(&room, name, SFlag::S_IFREG, Mode::S_IRWXU, 0)?;
        }
        let group = watch::init()?;
        Ok(Self { room, group })
    }

    /// The cookie that the next rename gets.
    fn next(&self) -> Result<u32, Errno> {
        let group = self.group.as_fd();
        let wd = watch::add_watch_on(group, &self.room, Mask(libc::IN_MOVED_FROM))?;
        self.rename()?;
        watch::rm_watch(group, wd)?;
        let heard = drain(group)?;
        let first = Events::new(&heard).next().and_then(Result::ok);
        let cookie = first.ok_or(Errno::ENODATA)?.cookie.0;
        Ok(cookie.wrapping_add(1))
    }

    fn advance(&self, by: u32) -> Result<(), Errno> {
        if by % 2 == 1 {
            self.rename()?;
        }
        let room = self.room.as_raw_fd();
        // To exchange two names takes two cookies, and less time than two renames.
        for _ in 0..by / 2 {
            raw::renameat2(room, ONE, room, OTHER, libc::RENAME_EXCHANGE)?;
        }
        Ok(())
    }

    /// Takes one cookie.
    fn rename(&self) -> Result<(), Errno> {
        let room = self.room.as_raw_fd();
        mknodat(&self.room, FROM, SFlag::S_IFREG, Mode::S_IRWXU, 0)?;
        raw::renameat2(room, FROM, room, TO, 0)?;
        raw::unlinkat(room, TO, 0).map(drop)
    }
}
