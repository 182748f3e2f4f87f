//! The kernel's TCP: plain connections, no TLS.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::{BLOCK_BYTES, Meter, Moment, Sent, Spec};

/// Sends over `flows` connections until the end.
pub(super) fn send(spec: &Spec, control: &str, flows: u32) -> Result<Sent> {
    spec.start.sleep();
    let end = spec.end();
    let threads: Vec<_> = (0..flows)
        .map(|_| {
            let (address, control) = (spec.addresses[0], control.to_owned());
            std::thread::spawn(move || -> Result<()> {
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
                socket
                    .set_tcp_congestion(control.as_bytes())
                    .with_context(|| format!("the kernel does not give TCP {control}"))?;
                socket.connect(&address.into()).context("cannot connect")?;
                fill(TcpStream::from(socket), end)
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    Ok(Sent { connections: flows, ..Sent::default() })
}

fn fill(mut stream: TcpStream, end: Moment) -> Result<()> {
    let block = vec![0x5a; BLOCK_BYTES];
    while Moment::now() < end {
        stream.set_write_timeout(Some(end.left().max(Duration::from_millis(1))))?;
        match stream.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    Ok(())
}

/// Accepts connections and counts what comes, in threads.
pub(super) fn receive(spec: &Spec, meter: Meter) -> Result<()> {
    let listener = TcpListener::bind(spec.addresses[0]).context("cannot listen")?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let meter = meter.clone();
            std::thread::spawn(move || drain(stream, &meter));
        }
    });
    Ok(())
}

fn drain(mut stream: TcpStream, meter: &Meter) {
    let mut block = vec![0; BLOCK_BYTES];
    while let Ok(length @ 1..) = stream.read(&mut block) {
        meter.add(length);
    }
}
