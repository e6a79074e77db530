//! scratch
#[cfg(test)]
mod authority;
pub mod tls;
