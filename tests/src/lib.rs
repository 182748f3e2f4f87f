//! Suites that need the whole house: the simulator here, and the tests beside it.

pub mod bridge;
pub mod simulation;
