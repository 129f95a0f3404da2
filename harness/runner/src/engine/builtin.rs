use super::*;
pub(super) fn cut(_: &Workshop, _: Option<Defect>) -> Result<Cut, CutError> {
    Err(CutError::Skip("stub".into()))
}
