//! Properties of the decoders that hold for every buffer. Fuzz targets and property tests call
//! these; each panics if its property does not hold.

use super::{DecodeError, fanotify, inotify};

/// What was decoded encodes to the same bytes; an error lies where decoding stopped.
///
/// # Panics
///
/// If one of these does not hold.
pub fn check_inotify(buffer: &[u8]) {
    let mut events = inotify::Events::new(buffer);
    let mut encoded = Vec::new();
    let mut error = None;
    for event in &mut events {
        match event {
            Ok(event) => inotify::encode(&event, &mut encoded),
            Err(found) => error = Some(found),
        }
    }
    check_end(buffer, &encoded, events.offset(), error);
}

/// What was decoded encodes to the same bytes; an error lies in the event where decoding stopped.
///
/// # Panics
///
/// If one of these does not hold.
pub fn check_fanotify(buffer: &[u8]) {
    let mut events = fanotify::Events::new(buffer);
    let mut encoded = Vec::new();
    let mut error = None;
    for event in &mut events {
        match event {
            Ok(event) => {
                let fanotify::Event { mask, fd, pid, .. } = event;
                fanotify::encode(mask, fd, pid, event.records(), &mut encoded);
            }
            Err(found) => error = Some(found),
        }
    }
    check_end(buffer, &encoded, events.offset(), error);
}

fn check_end(buffer: &[u8], encoded: &[u8], offset: usize, error: Option<DecodeError>) {
    assert!(encoded == &buffer[..offset], "encode(decode(x)) is not x");
    match error {
        None => assert_eq!(offset, buffer.len(), "decoding stopped early"),
        Some(error) => {
            assert!(
                error.offset >= offset,
                "{error}: before where decoding stopped"
            );
            assert!(error.offset < buffer.len(), "{error}: behind the buffer");
            let place = format!("offset {}: ", error.offset);
            assert!(error.to_string().starts_with(&place), "{error}");
        }
    }
}
