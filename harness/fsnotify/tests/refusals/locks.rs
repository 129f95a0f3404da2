//! Locks on the descriptor itself.

use fsnotify::fdinfo::ErrorKind::{BadLock, BadSeparator, HeadOrder};

use super::Lenient::Same;
use super::Row;

pub(super) const LOCKS: &[Row] = &[
    ("+lock:\t\n", BadLock, 5, 7, Same),
    (
        "+lock:\tinotify wd:1 ino:5 sdev:6 mask:1 ignored_mask:0 \n",
        BadLock,
        5,
        7,
        Same,
    ),
    (
        "+lock: 1: FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 EOF\n",
        BadSeparator,
        5,
        6,
        Same,
    ),
    (
        "+lock:\t1 FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 EOF\n",
        BadLock,
        5,
        8,
        Same,
    ),
    (
        "+lock:\t1: FLOCK ADVISORY WRITE 4423 00:10:1039 0 EOF\n",
        BadLock,
        5,
        10,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  RW    4423 00:10:1039 0 EOF\n",
        BadLock,
        5,
        27,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  MSNFS     READ 4423 00:10:1039 0 EOF\n",
        BadLock,
        5,
        27,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE x 00:10:1039 0 EOF\n",
        BadLock,
        5,
        33,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 0:10:1039 0 EOF\n",
        BadLock,
        5,
        39,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 010:10:1039 0 EOF\n",
        BadLock,
        5,
        38,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 00:10:0a 0 EOF\n",
        BadLock,
        5,
        45,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 99\n",
        BadLock,
        5,
        49,
        Same,
    ),
    (
        "+lock:\t1: FLOCK  ADVISORY  WRITE 4423 00:10:1039 0 EOF more\n",
        BadLock,
        5,
        54,
        Same,
    ),
    (
        "+lock:\t1: POSIX  ADVISORY  READ 4423 00:10:1039 5\n",
        BadLock,
        5,
        49,
        Same,
    ),
    ("@ \nlock:\t\n", HeadOrder, 6, 1, Same),
];
