//! How clients reach the brokers: a carrier of frames into the world, and ports for what comes back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use sequor_client::{
    carrier::{Arrival, Arrivals, Carrier, Wire},
    protocol::{BrokerId, RequestId, Response, ServerHello, frame::Frame},
};

use super::stage::Stage;
use crate::sim::embedded::{Embedded, Port};

/// The network, to a client.
#[derive(Debug)]
pub(super) struct Wires(pub(super) Arc<Stage>);

impl Carrier for Wires {
    fn connect(&self, broker: BrokerId, arrivals: Arrivals) -> Arc<dyn Wire> {
        let readers = Arc::default();
        let port = Box::new(Inbox { arrivals, readers: Arc::clone(&readers) });
        let connection = self.0.with(|world| world.connect(broker.0, port));
        Arc::new(Line { stage: Arc::clone(&self.0), connection, readers })
    }

    fn seed(&self) -> u64 {
        self.0.with(Embedded::draw)
    }

    fn wall_clock_ms(&self) -> i64 {
        i64::try_from(self.0.with(|world| world.wall_ms())).unwrap_or(i64::MAX)
    }
}

/// Who reads a subscription of a connection.
type Readers = Arc<Mutex<BTreeMap<RequestId, Arrivals>>>;

/// A client's end of a connection.
#[derive(Debug)]
struct Line {
    stage: Arc<Stage>,
    connection: u64,
    readers: Readers,
}

impl Wire for Line {
    fn send(&self, frame: Frame) {
        self.stage.with(|world| world.send(self.connection, frame));
    }

    fn subscribe(&self, id: RequestId, frame: Frame, arrivals: Arrivals) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, arrivals);
        self.send(frame);
    }

    fn took(&self, id: RequestId) {
        self.stage.with(|world| world.took(self.connection, id));
    }

    fn unsubscribe(&self, id: RequestId) {
        if self.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id).is_some() {
            self.stage.with_if_open(|world| world.unsubscribe(self.connection, id));
        }
    }

    fn close(&self) {
        self.stage.with_if_open(|world| world.close(self.connection));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.close();
    }
}

/// A client's end of a connection, to the world.
#[derive(Debug)]
struct Inbox {
    arrivals: Arrivals,
    readers: Readers,
}

impl Port for Inbox {
    fn greet(&mut self, hello: Box<ServerHello>) {
        // A client that is gone does not want to know. So below.
        let _gone = self.arrivals.send(Arrival::Hello(hello));
    }

    fn take(&mut self, id: RequestId, response: Response) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = matches!(response, Response::Refused(_));
        let arrival = Arrival::Response(id, response);
        let _gone = match readers.get(&id) {
            Some(reader) => reader.send(arrival),
            None => self.arrivals.send(arrival),
        };
        if is_last {
            readers.remove(&id);
        }
    }
}

impl Drop for Inbox {
    /// The connection is over, and so is every subscription on it.
    fn drop(&mut self) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
