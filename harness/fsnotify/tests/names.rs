//! Names of bits, as people write them.

use fsnotify::fanotify::{InitFlags, MarkFlags, Mask as FanotifyMask};
use fsnotify::inotify::Mask;
use fsnotify::{OpenFlags, ParseFlagsError};

#[test]
fn bits_print_by_name_and_unknown_bits_in_hex() {
    let printed = [
        Mask(0).to_string(),
        Mask(0x0401_0002).to_string(),
        Mask(0x8000_0fff).to_string(),
        FanotifyMask(0x4800_0038).to_string(),
        FanotifyMask(0x1_0000_0001).to_string(),
        InitFlags(0).to_string(),
        InitFlags(0x8003).to_string(),
        InitFlags(0x20c).to_string(),
        MarkFlags(0x640).to_string(),
        MarkFlags(0x110).to_string(),
        OpenFlags(0).to_string(),
        OpenFlags(0x80_8002).to_string(),
        OpenFlags(0x10_1401).to_string(),
    ];
    let expected = [
        "0",
        "IN_MODIFY|IN_EXCL_UNLINK|0x10000",
        "IN_ALL_EVENTS|IN_ONESHOT",
        "FAN_CLOSE_WRITE|FAN_CLOSE_NOWRITE|FAN_OPEN|FAN_EVENT_ON_CHILD|FAN_ONDIR",
        "FAN_ACCESS|0x100000000",
        "FAN_CLASS_NOTIF",
        "FAN_CLASS_NOTIF|FAN_CLOEXEC|FAN_NONBLOCK|0x8000",
        "FAN_CLASS_CONTENT|FAN_CLASS_PRE_CONTENT|FAN_REPORT_FID",
        "FAN_MARK_IGNORED_SURV_MODIFY|FAN_MARK_EVICTABLE|FAN_MARK_IGNORE",
        "FAN_MARK_MNTNS",
        "O_RDONLY",
        "O_RDWR|O_LARGEFILE|0x800000",
        "O_WRONLY|O_APPEND|O_SYNC",
    ];
    assert_eq!(printed, expected);
}

#[test]
fn names_of_several_bits_are_understood() {
    assert_eq!("IN_CLOSE|IN_MOVE".parse(), Ok(Mask(0xd8)));
    assert_eq!("FAN_CLOSE|FAN_ONDIR".parse(), Ok(FanotifyMask(0x4000_0018)));
    assert_eq!(
        "FAN_REPORT_DFID_NAME|FAN_CLASS_NOTIF".parse(),
        Ok(InitFlags(0xc00))
    );
    assert_eq!("FAN_MARK_IGNORE_SURV".parse(), Ok(MarkFlags(0x440)));
    assert_eq!("O_RDWR|O_NDELAY".parse(), Ok(OpenFlags(0x802)));
}

#[test]
fn a_word_that_is_no_name_is_refused_at_its_column() {
    for (text, word, column) in [
        ("IN_MODFY", "IN_MODFY", 1),
        ("IN_OPEN|IN_MODFY", "IN_MODFY", 9),
        ("IN_OPEN| IN_MODIFY", " IN_MODIFY", 9),
        ("IN_OPEN|", "", 9),
        ("", "", 1),
        ("0x", "0x", 1),
        ("0x+1", "0x+1", 1),
        ("12", "12", 1),
        ("IN_OPEN|0x100000000", "0x100000020", 1),
    ] {
        let word = word.to_owned();
        let expected = Err(ParseFlagsError { word, column });
        assert_eq!(text.parse::<Mask>(), expected, "{text:?}");
    }
}

#[test]
fn bits_without_a_name_can_be_asked_for() {
    assert_eq!(Mask(0x0401_0002).unknown(), Mask(0x1_0000));
    assert_eq!(
        FanotifyMask(0x1_0000_0001).unknown(),
        FanotifyMask(0x1_0000_0000)
    );
    assert_eq!(InitFlags(0xffff).unknown(), InitFlags(0x8000));
    assert_eq!(OpenFlags(0x80_8002).unknown(), OpenFlags(0x80_0000));
    assert!(Mask::words().any(|word| word == "IN_MODIFY"));
}
