//! Cookies are compared by what they pair, over the whole run: a lost pair shifts every number that
//! comes after it and changes nothing.

use std::collections::HashMap;

use scenario::Fact;

use super::fields::Field;
use crate::invariant;

/// Which cookie of restored stands for which cookie of control, as far as aligned events have shown.
#[derive(Debug, Default)]
pub(super) struct Cookies {
    to_restored: HashMap<u32, u32>,
    to_control: HashMap<u32, u32>,
}

impl Cookies {
    /// Takes note of two aligned events; a field if their cookies do not pair the same events.
    pub(super) fn compare(
        &mut self,
        control: &Fact,
        restored: &Fact,
        unread: bool,
    ) -> Option<Field> {
        let (Fact::Event(a), Fact::Event(b)) = (control, restored) else {
            return None;
        };
        let equal = match (a.cookie, b.cookie) {
            (0, 0) => true,
            (0, _) | (_, 0) => false,
            (a, b) => {
                let to_restored = *self.to_restored.entry(a).or_insert(b);
                let to_control = *self.to_control.entry(b).or_insert(a);
                (to_restored, to_control) == (b, a)
            }
        };
        let shown = |cookie| match cookie {
            0 => "none".to_owned(),
            number => format!("cookie#{number}"),
        };
        (!equal).then(|| Field {
            name: "cookie",
            invariant: if unread {
                invariant::UNREAD_COOKIE
            } else {
                invariant::EVENT_COOKIE
            },
            control: shown(a.cookie),
            restored: shown(b.cookie),
        })
    }
}
