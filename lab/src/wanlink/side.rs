//! One end of the path: a network namespace, and the TUN device in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use nix::sched::{CloneFlags, setns};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::Error;

/// A namespace with an address on a TUN device; gone when dropped.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) namespace: String,
    /// `/proc/net/dev` of the namespace.
    interfaces: Mutex<File>,
}

impl Side {
    /// Makes the namespace, and in it a TUN device with `address` (with prefix length).
    pub(super) fn create(namespace: &str, address: &str, mtu: u16) -> Result<(Self, SyncDevice), Error> {
        ip(["netns", "add", namespace])?;
        let made = in_namespace(namespace.to_owned(), open);
        let (device, interfaces) = match made {
            Ok(made) => made,
            Err(error) => {
                // The first error is the one to tell.
                let _ = ip(["netns", "del", namespace]);
                return Err(error);
            }
        };
        let side = Self { namespace: namespace.to_owned(), interfaces: Mutex::new(interfaces) };
        let (mtu, length) = (mtu.to_string(), TX_QUEUE_PACKETS.to_string());
        ip(["-n", namespace, "link", "set", "lo", "up"])?;
        side.add_address(address)?;
        ip(["-n", namespace, "link", "set", DEVICE, "mtu", &mtu, "txqueuelen", &length, "up"])?;
        Ok((side, device))
    }

    pub(super) fn add_address(&self, address: &str) -> Result<(), Error> {
        ip(["-n", &self.namespace, "addr", "add", address, "dev", DEVICE])
    }

    pub(super) fn remove_address(&self, address: &str) -> Result<(), Error> {
        ip(["-n", &self.namespace, "addr", "del", address, "dev", DEVICE])
    }

    /// Packets that the kernel dropped since the device was made, as the emulator did not take them in time.
    pub(super) fn drops(&self) -> u64 {
        let mut text = String::new();
        let mut file = self.interfaces.lock().unwrap_or_else(PoisonError::into_inner);
        if file.seek(SeekFrom::Start(0)).is_err() || file.read_to_string(&mut text).is_err() {
            return 0;
        }
        drops_in(&text)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Nothing more can be done about a namespace that stays.
        let _ = ip(["netns", "del", &self.namespace]);
    }
}

/// Opens what must be opened from inside a namespace: a thread of its own enters it, this one stays where it is.
pub(super) fn in_namespace<T: Send + 'static>(
    namespace: String,
    open: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let thread = std::thread::spawn(move || {
        let failed = |why: String| Error::Namespace { namespace: namespace.clone(), why };
        let file =
            File::open(format!("/var/run/netns/{namespace}")).map_err(|error| failed(error.to_string()))?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|error| failed(error.to_string()))?;
        open()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn open() -> Result<(SyncDevice, File), Error> {
    for (file, value) in KERNEL_SETTINGS {
        // Where the kernel lacks one, the path still works.
        let _ = std::fs::write(format!("/proc/sys/net/{file}"), value);
    }
    let failed = |why: std::io::Error| Error::Tun { why };
    // What TCP and UDP leave whole for the device to cut is cut here (`packets.rs`), and packets that arrive together are
    // handed over together: a device that does neither costs a system call for every packet, at both ends.
    let device = DeviceBuilder::new()
        .name(DEVICE)
        .offload(true)
        .inherit_enable_state()
        .build_sync()
        .map_err(failed)?;
    device.set_nonblocking(true).map_err(failed)?;
    Ok((device, File::open("/proc/thread-self/net/dev").map_err(failed)?))
}

fn ip<const N: usize>(arguments: [&str; N]) -> Result<(), Error> {
    run("ip", arguments)
}

/// Runs a program to its end.
pub(super) fn run<const N: usize>(program: &'static str, arguments: [&str; N]) -> Result<(), Error> {
    let failed = |why: String| Error::Program { line: format!("{program} {}", arguments.join(" ")), why };
    let output = Command::new(program)
        .args(arguments.map(OsStr::new))
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// The column of `/proc/net/dev` for packets dropped on transmission.
fn drops_in(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(device, _)| device.trim() == DEVICE)
        .and_then(|(_, fields)| fields.split_whitespace().nth(11)?.parse().ok())
        .unwrap_or(0)
}

/// The device's name, the same on both sides.
const DEVICE: &str = "wan0";
const TX_QUEUE_PACKETS: u32 = 10_000;
/// No IPv6 chatter on the path; TCP may use what a long path needs, and remembers nothing from one measurement to the
/// next.
const KERNEL_SETTINGS: [(&str, &str); 5] = [
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/tcp_rmem", "4096 131072 33554432"),
    ("ipv4/tcp_wmem", "4096 65536 33554432"),
    ("ipv4/tcp_no_metrics_save", "1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_right_column_of_the_right_device() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop ... \n    \
                    lo:  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  wan0: 1 2 3 4 5 6 7 8 9 10 11 77 13 14 15 16\n";
        assert_eq!(drops_in(text), 77);
        assert_eq!(drops_in(""), 0);
    }

    #[test]
    fn a_program_that_fails_is_named_with_what_it_said() {
        let error = run("ls", ["/nowhere at all"]).unwrap_err().to_string();
        assert!(error.contains("ls /nowhere at all") && error.contains("No such file"), "{error}");
    }
}
