//! What it costs to rebuild a queue: the filling of the gate, and each event.
//!
//! `cargo bench -p cr --bench rebuild`. Needs root, or a user namespace of one's own.

use std::os::fd::AsFd;

use cr::queue::{drain, rebuild};
use cr::sys::watch;
use fsnotify::event::inotify::{Event, encode};
use fsnotify::inotify::Mask;
use fsnotify::{Cookie, Wd};

fn main() {
    divan::main();
}

/// Events of directory entries, of seven watches.
fn queue(n_events: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..n_events {
        let event = Event {
            wd: Wd::new(1 + i32::try_from(n % 7).expect("small")),
            mask: Mask([libc::IN_CREATE, libc::IN_CLOSE_WRITE, libc::IN_DELETE][n % 3]),
            cookie: Cookie(0),
            name: b"some-name",
        };
        encode(&event, &mut bytes);
    }
    bytes
}

/// In a new group each time; making and dropping it is not measured.
#[divan::bench(args = [0, 1, 10, 100, 1000, 10_000], sample_count = 20, sample_size = 1)]
fn rebuilt(bencher: divan::Bencher<'_, '_>, n_events: usize) {
    let queue = queue(n_events);
    bencher
        .with_inputs(|| watch::init().expect("inotify_init1"))
        .bench_local_values(|group| {
            rebuild(group.as_fd(), &queue, &[]).expect("a queue that can be rebuilt");
            group
        });
}

/// The least that the kernel does: as many events made and read as fill a queue.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn floor_of_one_full_queue(bencher: divan::Bencher<'_, '_>) {
    let limit = cr::queue::limit().expect("a limit");
    let file = tempfile::tempfile().expect("a file");
    bencher
        .with_inputs(|| {
            let group = watch::init().expect("inotify_init1");
            watch::add_watch_on(group.as_fd(), &file, Mask::ALL_EVENTS).expect("a watch");
            group
        })
        .bench_local_values(|group| {
            for n in 0..limit {
                // Two kinds, as equal events merge.
                if n % 2 == 0 {
                    nix::unistd::write(&file, b"x").expect("a write");
                } else {
                    nix::unistd::lseek(&file, 0, nix::unistd::Whence::SeekSet).expect("a seek");
                    nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::S_IRWXU).expect("a chmod");
                }
            }
            drain(group.as_fd()).expect("the events");
            group
        });
}
