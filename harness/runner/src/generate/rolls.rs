//! What chance decides: small numbers, with no meaning until they are written as a scenario.

use proptest::collection::vec;
use proptest::prelude::*;

/// Rolls of one step, if the world then allows any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// Which call.
    pub call: u16,
    /// Its operands, each out of what there is.
    pub first: u8,
    pub second: u8,
    /// Its flags and variants.
    pub variant: u8,
}

/// Everything that chance decides of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub rolls: Vec<Roll>,
    /// Places of the cuts, each a fraction of the steps.
    pub cuts: Vec<u8>,
}

/// Lists of rolls, which shrink to shorter ones and to smaller numbers: [`super::write`] gives the
/// plainest meaning to the smallest number.
pub fn rolls() -> impl Strategy<Value = Case> {
    let roll = (any::<u16>(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(
        |(call, first, second, variant)| Roll {
            call,
            first,
            second,
            variant,
        },
    );
    (vec(roll, 4..28), vec(any::<u8>(), 1..3)).prop_map(|(rolls, cuts)| Case { rolls, cuts })
}
