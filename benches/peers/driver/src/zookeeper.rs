//! ZooKeeper: setData on nodes that exist, over one session with the leader, whose requests are pipelined.

use futures_util::future::try_join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use zookeeper_client::{Acls, Client, CreateMode, Error};

use crate::{
    How, Shape,
    load::{Peer, PeerError, until_it_works},
};

/// Nodes that are made at once. Count.
const CREATED_AT_ONCE: usize = 500;

/// A session with the leader.
pub(crate) struct ZooKeeper {
    client: Client,
    shape: Shape,
    /// Nodes to write to, those of each request together.
    paths: Vec<String>,
}

impl ZooKeeper {
    pub(crate) async fn connect(endpoints: &[String], shape: Shape) -> Result<Self, PeerError> {
        let leader = until_it_works(|| leader(endpoints)).await?;
        let client =
            until_it_works(|| async { Client::connect(&leader).await.map_err(PeerError::to("connect")) });
        let client = client.await?;
        let each = if shape.how == How::Value { 1 } else { shape.point.batch };
        let paths: Vec<_> =
            (0..each * shape.point.in_flight).map(|number| format!("/bench-{number}")).collect();
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        for some in paths.chunks(CREATED_AT_ONCE) {
            let created = some.iter().map(|path| async {
                match client.create(path, &[], &options).await {
                    Ok(_) | Err(Error::NodeExists) => Ok(()),
                    Err(error) => Err(PeerError::cannot("create a node", error)),
                }
            });
            try_join_all(created).await?;
        }
        Ok(Self { client, shape, paths })
    }

    fn paths_of(&self, slot: usize) -> &[String] {
        let each =
            self.paths.len() / usize::try_from(self.shape.point.in_flight).expect("they are in memory");
        &self.paths[slot * each..(slot + 1) * each]
    }
}

/// The endpoint that leads: ZooKeeper tells by a command of four letters.
async fn leader(endpoints: &[String]) -> Result<String, PeerError> {
    for endpoint in endpoints {
        let mut stream = TcpStream::connect(endpoint).await.map_err(PeerError::to("connect"))?;
        let mut said = String::new();
        stream.write_all(b"srvr").await.map_err(PeerError::to("ask for the status"))?;
        stream.read_to_string(&mut said).await.map_err(PeerError::to("ask for the status"))?;
        if said.contains("Mode: leader") {
            return Ok(endpoint.clone());
        }
    }
    Err(PeerError::cannot("find the leader", "no endpoint leads"))
}

impl Peer for ZooKeeper {
    async fn request(&self, slot: usize) -> Result<(), PeerError> {
        let paths = self.paths_of(slot);
        let Shape { how, record, whole, .. } = &self.shape;
        match how {
            How::Each => {
                let writes = paths.iter().map(|path| self.client.set_data(path, record, None));
                try_join_all(writes).await.map(drop).map_err(PeerError::to("set data"))
            }
            How::Txn => {
                let mut multi = self.client.new_multi_writer();
                for path in paths {
                    multi.add_set_data(path, record, None).map_err(PeerError::to("set data"))?;
                }
                multi.commit().await.map(drop).map_err(PeerError::to("write a multi"))
            }
            How::Value => self
                .client
                .set_data(&paths[0], whole, None)
                .await
                .map(drop)
                .map_err(PeerError::to("set data")),
        }
    }
}
