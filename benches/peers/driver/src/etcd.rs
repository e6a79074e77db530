//! etcd: puts at the leader, over as many connections as its own benchmark would use.

use std::cell::RefCell;

use etcd_client::{Client, KvClient, Txn, TxnOp};
use futures_util::future::try_join_all;

use crate::{
    How, Shape,
    load::{Peer, PeerError, until_it_works},
};

/// Requests in flight for which there is a connection of its own, as in etcd's benchmark with 100 connections for 1,000
/// clients. Count.
const REQUESTS_PER_CONNECTION: u64 = 10;
/// Most connections. Count.
const CONNECTIONS_MAX: u64 = 100;

/// Connections to the leader.
pub(crate) struct Etcd {
    clients: Vec<RefCell<KvClient>>,
    shape: Shape,
}

impl Etcd {
    pub(crate) async fn connect(endpoints: &[String], shape: Shape) -> Result<Self, PeerError> {
        let leader = until_it_works(|| leader(endpoints)).await?;
        let count = shape.point.in_flight.div_ceil(REQUESTS_PER_CONNECTION).min(CONNECTIONS_MAX);
        let mut clients = Vec::new();
        for _ in 0..count {
            let client = Client::connect([&leader], None).await.map_err(PeerError::to("connect"))?;
            clients.push(RefCell::new(client.kv_client()));
        }
        Ok(Self { clients, shape })
    }
}

/// The endpoint that leads, once it can be written to.
async fn leader(endpoints: &[String]) -> Result<String, PeerError> {
    for endpoint in endpoints {
        let client = Client::connect([endpoint], None).await.map_err(PeerError::to("connect"))?;
        let status =
            client.maintenance_client().status().await.map_err(PeerError::to("ask for the status"))?;
        if status.header().is_some_and(|header| header.member_id() == status.leader()) {
            client.kv_client().put("ready", "", None).await.map_err(PeerError::to("put"))?;
            return Ok(endpoint.clone());
        }
    }
    Err(PeerError::cannot("find the leader", "no endpoint leads"))
}

impl Peer for Etcd {
    async fn request(&self, slot: usize) -> Result<(), PeerError> {
        let mut client = self.clients[slot % self.clients.len()].borrow().clone();
        let Shape { how, point, record, whole } = &self.shape;
        let key = |record: u64| format!("{slot}/{record}");
        match how {
            How::Each => {
                let puts = (0..point.batch).map(|number| {
                    let (mut client, key) = (client.clone(), key(number));
                    async move { client.put(key, &record[..], None).await }
                });
                try_join_all(puts).await.map(drop).map_err(PeerError::to("put"))
            }
            How::Txn => {
                let puts: Vec<_> =
                    (0..point.batch).map(|number| TxnOp::put(key(number), &record[..], None)).collect();
                client
                    .txn(Txn::new().and_then(puts))
                    .await
                    .map(drop)
                    .map_err(PeerError::to("write a transaction"))
            }
            How::Value => client.put(key(0), &whole[..], None).await.map(drop).map_err(PeerError::to("put")),
        }
    }
}
