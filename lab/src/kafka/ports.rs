//! TCP ports on loopback that stay ours while their owner is down.
//!
//! A broker that is killed comes back on its port. Below the kernel's ephemeral range no outgoing connection can
//! take the port meanwhile, and a locked file keeps other processes of this suite off it.

use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use super::{Error, Result};

/// Linux hands out ephemeral ports from 32768 on.
const FIRST: u16 = 17_000;
const COUNT: u16 = 14_000;

/// A reserved port; free for others again when dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    /// Its lock is the reservation.
    _lock: File,
}

impl Port {
    pub(crate) fn reserve() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let directory = std::env::temp_dir().join("longhaul-lab-ports");
        std::fs::create_dir_all(&directory).map_err(Error::Ports)?;
        let start = u16::try_from(std::process::id() * 37 % u32::from(COUNT)).expect("below COUNT");
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST
                + u16::try_from((u32::from(start) + u32::from(step)) % u32::from(COUNT))
                    .expect("below COUNT");
            let lock = File::create(directory.join(number.to_string())).map_err(Error::Ports)?;
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(Error::Ports(std::io::Error::other("every port from 17000 to 31000 is taken")))
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_out_twice() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
