//! Descriptors that go from one process to another over a Unix socket (unix(7), `SCM_RIGHTS`).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Descriptors of one message, at most.
pub const MOST: usize = 16;

// SAFETY: it computes a number from a number.
const CONTROL_SIZE: usize = unsafe { libc::CMSG_SPACE(data_size(MOST)) } as usize;

#[expect(clippy::cast_possible_truncation, reason = "at most MOST numbers")]
const fn data_size(n_files: usize) -> libc::c_uint {
    (n_files * size_of::<RawFd>()) as libc::c_uint
}

/// Room for the control part of a message, aligned as its header must be.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; CONTROL_SIZE],
}

/// sendmsg(2) of one byte and up to [`MOST`] descriptors; no `SIGPIPE`.
///
/// # Errors
///
/// The errno of the call: `EPIPE` when the other end is closed; `E2BIG` for more.
pub fn send(socket: impl AsFd, files: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    if files.len() > MOST {
        return Err(Errno::E2BIG);
    }
    let mut control = Control {
        bytes: [0; CONTROL_SIZE],
    };
    with_message(&mut control, |message| {
        if files.is_empty() {
            message.msg_controllen = 0;
        } else {
            // SAFETY: the control part of `message` is `control`, which is large enough for one
            // header and MOST numbers, so the header that CMSG_FIRSTHDR finds and its data lie
            // within it.
            unsafe {
                let size = data_size(files.len());
                let header = libc::CMSG_FIRSTHDR(message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(size) as _;
                let numbers = libc::CMSG_DATA(header).cast::<RawFd>();
                for (index, file) in files.iter().enumerate() {
                    numbers.add(index).write_unaligned(file.as_raw_fd());
                }
                message.msg_controllen = libc::CMSG_SPACE(size) as _;
            }
        }
        // SAFETY: `message` describes live buffers of the sizes that it says.
        unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), message, libc::MSG_NOSIGNAL) }
    })
    .map(drop)
}

/// recvmsg(2) of such a message, close-on-exec; none when the other end is closed.
///
/// # Errors
///
/// The errno of the call.
pub fn receive(socket: impl AsFd) -> Result<Option<Vec<OwnedFd>>, Errno> {
    let mut control = Control {
        bytes: [0; CONTROL_SIZE],
    };
    let mut files = Vec::new();
    let n_read = with_message(&mut control, |message| {
        // SAFETY: `message` describes live buffers of the sizes that it says.
        let returned = unsafe {
            let fd = socket.as_fd().as_raw_fd();
            libc::recvmsg(fd, message, libc::MSG_CMSG_CLOEXEC)
        };
        if returned > 0 {
            // SAFETY: the kernel has just filled the control part.
            files = unsafe { rights(message) };
        }
        returned
    })?;
    Ok((n_read > 0).then_some(files))
}

/// # Safety
///
/// The kernel must have filled the message, whose descriptors nobody has taken yet.
unsafe fn rights(message: &libc::msghdr) -> Vec<OwnedFd> {
    // SAFETY: a header that the kernel wrote, or null, and its data behind it, of the length that it
    // says. Each descriptor is new and ours alone.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null()
            || (*header).cmsg_level != libc::SOL_SOCKET
            || (*header).cmsg_type != libc::SCM_RIGHTS
        {
            return Vec::new();
        }
        let length = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
        let numbers = libc::CMSG_DATA(header).cast::<RawFd>();
        (0..length / size_of::<RawFd>())
            .map(|index| OwnedFd::from_raw_fd(numbers.add(index).read_unaligned()))
            .collect()
    }
}

/// Calls with a message that has one byte and this control part.
fn with_message(
    control: &mut Control,
    call: impl FnOnce(&mut libc::msghdr) -> isize,
) -> Result<usize, Errno> {
    let mut byte = [b'.'];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: byte.len(),
    };
    // SAFETY: msghdr is plain old data for which zero is a valid value of every field.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut *control).cast();
    message.msg_controllen = CONTROL_SIZE as _;
    let returned = Errno::result(call(&mut message))?;
    Ok(usize::try_from(returned).expect("no error"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_sent_is_received_and_then_the_end() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&here, &[writer.as_fd(), here.as_fd()]).unwrap();
        send(&here, &[]).unwrap();
        drop((here, writer));
        let files = receive(&there).unwrap().unwrap();
        let [writer, here] = files.try_into().unwrap();
        assert_eq!(receive(&there).unwrap().unwrap().len(), 0);
        std::fs::File::from(writer).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(here);
        assert!(receive(&there).unwrap().is_none());
    }

    #[test]
    fn more_than_fit_are_not_sent() {
        let (here, _there) = UnixStream::pair().unwrap();
        let files = vec![here.as_fd(); MOST + 1];
        assert_eq!(send(&here, &files), Err(Errno::E2BIG));
        assert_eq!(send(&here, &files[1..]), Ok(()));
    }
}
