//! Messages as bytes: the body and the payload of each kind of frame.
//!
//! ```text
//!   hello     ClientHello or ServerHello
//!   request   context length varint | Context | message            payload: the batch of an Append
//!   answer    message                                              payload: the batches of a Delivery
//! ```
//!
//! Bodies are postcard: fields in the order of their declaration, integers as varints, no names. Therefore a message
//! only grows at its end, and a peer sends what it added only to one that speaks the version which added it. Hellos
//! and answers may end with more than their reader knows; a request may not, because a broker must not ignore a wish.
//! The context has its length in front so that it, too, has an end to grow at.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Acks, Append, ClientHello, Context, Delivery, Feature, Field, KeepAlive, List, Lookup, Offset, Open,
    OpenSession, ProducerId, Refusal, Request, RequestId, Resolve, Response, Retire, Sequence, ServerHello,
    Subscribe,
    frame::{Frame, FrameError, Kind, RawFrame, payload_bytes_max, within},
    limits::{
        BATCH_BYTES_MAX, DEADLINE_MS_MAX, NAME_BYTES_MAX, SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN,
        SOFTWARE_BYTES_MAX, TOKENS_MAX,
    },
};

#[derive(Serialize, Deserialize)]
struct AppendBody {
    acks: Acks,
    settled: Sequence,
    expect_end: Option<Offset>,
}

#[derive(Serialize, Deserialize)]
struct DeliveryBody {
    next: Offset,
    end: Offset,
    names: Vec<(ProducerId, String)>,
}

/// The frame of the first thing a client says.
///
/// # Errors
///
/// [`Refusal::TooLarge`].
pub fn encode_client_hello(hello: &ClientHello) -> Result<Frame, Refusal> {
    Frame::build(Kind::ClientHello, RequestId::NONE, &postcard_of(hello), Vec::new())
}

/// The frame of the answer to it.
///
/// # Errors
///
/// [`Refusal::TooLarge`].
pub fn encode_server_hello(hello: &ServerHello) -> Result<Frame, Refusal> {
    Frame::build(Kind::ServerHello, RequestId::NONE, &postcard_of(hello), Vec::new())
}

/// The frame of a request.
///
/// # Errors
///
/// [`Refusal::TooLarge`] or [`Refusal::Malformed`] for what a broker would refuse to read.
pub fn encode_request(id: RequestId, context: &Context, request: &Request) -> Result<Frame, Refusal> {
    check_context(context)?;
    check_request(request)?;
    let (kind, message, payload) = match request {
        Request::Open(open) => (Kind::Open, postcard_of(open), None),
        Request::Append(append) => {
            let Append { acks, settled, expect_end, batch } = append;
            let body = AppendBody { acks: *acks, settled: *settled, expect_end: *expect_end };
            (Kind::Append, postcard_of(&body), Some(batch.clone()))
        }
        Request::Lookup(lookup) => (Kind::Lookup, postcard_of(lookup), None),
        Request::Resolve(resolve) => (Kind::Resolve, postcard_of(resolve), None),
        Request::Retire(retire) => (Kind::Retire, postcard_of(retire), None),
        Request::List(list) => (Kind::List, postcard_of(list), None),
        Request::End => (Kind::End, Vec::new(), None),
        Request::Status => (Kind::Status, Vec::new(), None),
        Request::Subscribe(subscribe) => (Kind::Subscribe, postcard_of(subscribe), None),
        Request::OpenSession(open) => (Kind::OpenSession, postcard_of(open), None),
        Request::KeepAlive(alive) => (Kind::KeepAlive, postcard_of(alive), None),
    };
    let context = postcard_of(context);
    let mut body = postcard_of(&(context.len() as u32));
    body.extend_from_slice(&context);
    body.extend_from_slice(&message);
    Frame::build(kind, id, &body, payload.into_iter().collect())
}

/// The frame of an answer.
///
/// # Errors
///
/// [`Refusal::TooLarge`] if the answer takes more than a frame may: only a delivery can.
pub fn encode_response(id: RequestId, response: &Response) -> Result<Frame, Refusal> {
    let (kind, body) = match response {
        Response::Opened(producer) => (Kind::Opened, postcard_of(producer)),
        Response::Appended(appended) => (Kind::Appended, postcard_of(appended)),
        Response::Accepted(appended) => (Kind::Accepted, postcard_of(appended)),
        Response::Found(producer) => (Kind::Found, postcard_of(producer)),
        Response::Alive(alive) => (Kind::Alive, postcard_of(alive)),
        Response::Resolved(resolved) => (Kind::Resolved, postcard_of(resolved)),
        Response::Retired(retired) => (Kind::Retired, postcard_of(retired)),
        Response::Listed(listed) => (Kind::Listed, postcard_of(listed)),
        Response::End(end) => (Kind::EndIs, postcard_of(end)),
        Response::Status(status) => (Kind::StatusIs, postcard_of(status)),
        Response::Leads(leads) => (Kind::Leads, postcard_of(leads)),
        Response::Delivery(delivery) => return encode_delivery(id, delivery),
        Response::Refused(refusal) => (Kind::Refused, postcard_of(refusal)),
    };
    Frame::build(kind, id, &body, Vec::new())
}

fn encode_delivery(id: RequestId, delivery: &Delivery) -> Result<Frame, Refusal> {
    let Delivery { next, end, names, stretches } = delivery;
    let body = postcard_of(&DeliveryBody { next: *next, end: *end, names: names.clone() });
    Frame::build(Kind::Delivery, id, &body, stretches.clone())
}

fn postcard_of<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("a message without maps and references always has a postcard form")
}

impl RawFrame {
    /// Reads it as a request.
    ///
    /// # Errors
    ///
    /// The refusal to answer with; the stream goes on.
    pub fn request(self) -> Result<(RequestId, Context, Request), (RequestId, Refusal)> {
        let id = self.id;
        let (context, request) = self.read_request().map_err(|refusal| (id, refusal))?;
        Ok((id, context, request))
    }

    fn read_request(self) -> Result<(Context, Request), Refusal> {
        let kind = self.known()?;
        let malformed = Refusal::Malformed { what: Field::Body };
        let (context_len, rest) =
            postcard::take_from_bytes::<u32>(&self.body).map_err(|_| malformed.clone())?;
        let (context, message) = rest.split_at_checked(context_len as usize).ok_or(malformed)?;
        let context: Context = exactly(context)?;
        check_context(&context)?;
        let request = match kind {
            Kind::Open => Request::Open(exactly::<Open>(message)?),
            Kind::Append => {
                let AppendBody { acks, settled, expect_end } = exactly(message)?;
                Request::Append(Append { acks, settled, expect_end, batch: self.payload })
            }
            Kind::Lookup => Request::Lookup(exactly::<Lookup>(message)?),
            Kind::Resolve => Request::Resolve(exactly::<Resolve>(message)?),
            Kind::Retire => Request::Retire(exactly::<Retire>(message)?),
            Kind::List => Request::List(exactly::<List>(message)?),
            Kind::End => exactly::<()>(message).map(|()| Request::End)?,
            Kind::Status => exactly::<()>(message).map(|()| Request::Status)?,
            Kind::Subscribe => Request::Subscribe(exactly::<Subscribe>(message)?),
            Kind::OpenSession => Request::OpenSession(exactly::<OpenSession>(message)?),
            Kind::KeepAlive => Request::KeepAlive(exactly::<KeepAlive>(message)?),
            Kind::Transact | Kind::Range | Kind::Watch => {
                return Err(Refusal::Unsupported { what: Feature::KeyValue });
            }
            _ => return Err(Refusal::Unsupported { what: Feature::Kind(self.kind) }),
        };
        check_request(&request)?;
        Ok((context, request))
    }

    /// Reads it as an answer.
    ///
    /// # Errors
    ///
    /// [`FrameError::Answer`]: this broker and this library do not understand each other; close the stream.
    pub fn response(self) -> Result<(RequestId, Response), FrameError> {
        let (id, kind) = (self.id, self.kind);
        self.read_response().map(|response| (id, response)).ok_or(FrameError::Answer { kind })
    }

    fn read_response(self) -> Option<Response> {
        let body = &self.body;
        Some(match self.known().ok()? {
            Kind::Opened => Response::Opened(at_least(body)?),
            Kind::Appended => Response::Appended(at_least(body)?),
            Kind::Accepted => Response::Accepted(at_least(body)?),
            Kind::Found => Response::Found(at_least(body)?),
            Kind::Alive => Response::Alive(at_least(body)?),
            Kind::Resolved => Response::Resolved(at_least(body)?),
            Kind::Retired => Response::Retired(at_least(body)?),
            Kind::Listed => Response::Listed(at_least(body)?),
            Kind::EndIs => Response::End(at_least(body)?),
            Kind::StatusIs => Response::Status(at_least(body)?),
            Kind::Leads => Response::Leads(at_least(body)?),
            Kind::Refused => Response::Refused(at_least(body)?),
            Kind::Delivery => {
                let DeliveryBody { next, end, names } = at_least(body)?;
                Response::Delivery(Delivery { next, end, names, stretches: vec![self.payload] })
            }
            _ => return None,
        })
    }

    /// Reads it as the first frame of a client.
    ///
    /// # Errors
    ///
    /// The refusal to answer with; the connection ends there.
    pub fn client_hello(self) -> Result<ClientHello, Refusal> {
        match self.known()? {
            Kind::ClientHello => {
                let hello: ClientHello =
                    at_least(&self.body).ok_or(Refusal::Malformed { what: Field::Hello })?;
                within(Field::Hello, hello.software.len(), SOFTWARE_BYTES_MAX)?;
                Ok(hello)
            }
            _ => Err(Refusal::Unsupported { what: Feature::Kind(self.kind) }),
        }
    }

    /// Reads it as the first frame of a broker.
    ///
    /// # Errors
    ///
    /// The broker's refusal if it refused the client's hello; else [`Refusal::Malformed`] or
    /// [`Refusal::Unsupported`], because this is no hello.
    pub fn server_hello(self) -> Result<ServerHello, Refusal> {
        let malformed = Refusal::Malformed { what: Field::Hello };
        match self.known()? {
            Kind::ServerHello => at_least(&self.body).ok_or(malformed),
            Kind::Refused => Err(at_least(&self.body).unwrap_or(malformed)),
            _ => Err(Refusal::Unsupported { what: Feature::Kind(self.kind) }),
        }
    }

    /// The kind, if this library knows it and the frame has no flags and no payload that the kind does not have.
    fn known(&self) -> Result<Kind, Refusal> {
        let unknown = Refusal::Unsupported { what: Feature::Kind(self.kind) };
        let kind = Kind::of(self.kind).ok_or(unknown)?;
        if self.flags != 0 {
            return Err(Refusal::Unsupported { what: Feature::Flags(self.flags) });
        }
        within(Field::Batch, self.payload.len(), payload_bytes_max(kind))?;
        Ok(kind)
    }
}

/// All of the bytes, and no byte more.
fn exactly<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(Refusal::Malformed { what: Field::Body }),
    }
}

/// What is known of it; there may be more.
fn at_least<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

fn check_context(context: &Context) -> Result<(), Refusal> {
    within(Field::Tokens, context.tokens.len(), TOKENS_MAX)?;
    within(Field::Deadline, context.deadline_ms as usize, DEADLINE_MS_MAX as usize)
}

fn check_request(request: &Request) -> Result<(), Refusal> {
    match request {
        Request::Open(Open { name, .. }) | Request::Lookup(Lookup { name }) => {
            within(Field::Name, name.len(), NAME_BYTES_MAX)?;
            if name.is_empty() || name.starts_with('\0') {
                return Err(Refusal::Malformed { what: Field::Name });
            }
            Ok(())
        }
        Request::Append(append) => within(Field::Batch, append.batch.len(), BATCH_BYTES_MAX),
        Request::List(List { after, .. }) => {
            within(Field::Name, after.as_ref().map_or(0, String::len), NAME_BYTES_MAX)
        }
        Request::Resolve(_)
        | Request::Retire(_)
        | Request::End
        | Request::Status
        | Request::Subscribe(_)
        | Request::KeepAlive(_) => Ok(()),
        Request::OpenSession(OpenSession { ttl_ms, .. }) => {
            let (least, most) = (SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX);
            if (least..=most).contains(ttl_ms) {
                return Ok(());
            }
            Err(Refusal::TtlOutOfRange { found: *ttl_ms, least, most })
        }
    }
}
