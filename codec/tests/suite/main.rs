//! The codec from outside: what goes in comes out, what is wrong is named, what was written stays readable.

mod corpus;
mod fixtures;
mod hostile;
mod mutations;
mod shapes;
mod stream;
mod support;
