pub(crate) fn code_name(_code: i32) -> Option<&'static str> {
    None
}
pub(crate) fn code_description(_code: i32) -> Option<&'static str> {
    None
}
