//! One client connection: a thread for requests, a thread for answers.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Shared;
use super::held::{Caught, Hold};
use super::inspect;
use super::rules::{Action, Verdict};
use crate::wire::{RequestHeader, read_frame, write_frame};

/// What to do when the answer to a forwarded request arrives.
enum Await {
    /// Tell the one who released the request.
    Report(RequestHeader, Arc<Hold>),
    /// Cut the client in place of the answer.
    Swallow,
}

/// Answers that somebody waits for, by correlation id.
type Awaited = Arc<Mutex<HashMap<i32, Await>>>;

/// Serves a client until either side ends or the proxy cuts.
pub(super) fn serve(shared: &Arc<Shared>, node: usize, client: TcpStream) {
    // An error is the end of one connection, which is all that a client learns from a broker too.
    drop(run(shared, node, client));
}

fn run(shared: &Arc<Shared>, node: usize, client: TcpStream) -> io::Result<()> {
    let id = shared.open(&client)?;
    let target = shared.target(node);
    let ended = (|| {
        shared.pass(id)?;
        let broker = TcpStream::connect(&target)?;
        broker.set_nodelay(true)?;
        client.set_nodelay(true)?;
        shared.attach(id, &broker)?;
        let awaited = Awaited::default();
        let answers = {
            let (shared, awaited) = (shared.clone(), awaited.clone());
            let (broker, client) = (broker.try_clone()?, client.try_clone()?);
            std::thread::spawn(move || {
                drop(pump_answers(&shared, id, &broker, &client, &awaited));
                close(&client, &broker);
            })
        };
        let ended = pump_requests(shared, id, &target, &client, &broker, &awaited);
        close(&client, &broker);
        drop(answers.join());
        for (_, left) in lock(&awaited).drain() {
            if let Await::Report(_, hold) = left {
                hold.lost();
            }
        }
        ended
    })();
    shared.close(id);
    ended
}

fn pump_requests(
    shared: &Arc<Shared>,
    id: u64,
    target: &str,
    mut client: &TcpStream,
    mut broker: &TcpStream,
    awaited: &Awaited,
) -> io::Result<()> {
    while let Some(frame) = read_frame(&mut client)? {
        shared.pass(id)?;
        let Some(header) = RequestHeader::parse(&frame) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a request of Kafka"));
        };
        let correlation = header.correlation_id;
        match shared.judge(&header, &frame) {
            Verdict::Forward => {}
            Verdict::Act(Action::Delay(time)) => std::thread::sleep(time),
            Verdict::Act(Action::Drop) => continue,
            Verdict::Act(Action::CutBefore) => return Ok(()),
            Verdict::Act(Action::CutAfter) => return cut_after(client, broker, &frame),
            Verdict::Act(Action::SwallowAnswer) => {
                lock(awaited).insert(correlation, Await::Swallow);
            }
            Verdict::Hold(hold) => {
                let caught = Caught {
                    header: header.clone(),
                    frame: frame.clone(),
                    connection: id,
                    target: target.to_owned(),
                };
                if !hold.catch(caught) {
                    return Ok(());
                }
                lock(awaited).insert(correlation, Await::Report(header, hold));
            }
        }
        write_frame(&mut broker, &frame)?;
    }
    Ok(())
}

/// The client is cut first and the broker's side is closed politely: the broker has the whole request.
fn cut_after(client: &TcpStream, mut broker: &TcpStream, frame: &[u8]) -> io::Result<()> {
    client.shutdown(Shutdown::Both)?;
    write_frame(&mut broker, frame)?;
    // The answer proves that the broker has worked on it; it goes nowhere.
    read_frame(&mut broker).map(drop)
}

fn pump_answers(
    shared: &Arc<Shared>,
    id: u64,
    mut broker: &TcpStream,
    mut client: &TcpStream,
    awaited: &Awaited,
) -> io::Result<()> {
    while let Some(frame) = read_frame(&mut broker)? {
        shared.pass(id)?;
        let correlation = inspect::correlation_id(&frame).ok_or(io::ErrorKind::InvalidData)?;
        let waiting = lock(awaited).remove(&correlation);
        match waiting {
            None => {}
            Some(Await::Swallow) => return Ok(()),
            Some(Await::Report(request, hold)) => hold.answered(inspect::error_code(&request, &frame)),
        }
        write_frame(&mut client, &frame)?;
    }
    Ok(())
}

/// Both ways and both sides; a side that is closed already is what was wanted.
fn close(client: &TcpStream, broker: &TcpStream) {
    drop(client.shutdown(Shutdown::Both));
    drop(broker.shutdown(Shutdown::Both));
}

fn lock(awaited: &Awaited) -> MutexGuard<'_, HashMap<i32, Await>> {
    awaited.lock().unwrap_or_else(PoisonError::into_inner)
}
