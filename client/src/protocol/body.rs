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

use bytes::{BufMut as _, BytesMut};
use postcard::ser_flavors::{Flavor, Size};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Acks, Append, ClientHello, Context, Delivery, Feature, Field, KeepAlive, List, Lookup, Offset, Open,
    OpenSession, ProducerId, Refusal, Request, RequestId, Resolve, Response, Retire, Sequence, ServerHello,
    Subscribe,
    frame::{Frame, FrameError, Kind, RawFrame, payload_bytes_max, put_head, within},
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
    Frame::build(Kind::ClientHello, RequestId::NONE, Vec::new(), |body| put(hello, body))
}

/// The frame of the answer to it.
///
/// # Errors
///
/// [`Refusal::TooLarge`].
pub fn encode_server_hello(hello: &ServerHello) -> Result<Frame, Refusal> {
    Frame::build(Kind::ServerHello, RequestId::NONE, Vec::new(), |body| put(hello, body))
}

/// The frame of a request.
///
/// # Errors
///
/// [`Refusal::TooLarge`] or [`Refusal::Malformed`] for what a broker would refuse to read.
pub fn encode_request(id: RequestId, context: &Context, request: &Request) -> Result<Frame, Refusal> {
    check_context(context)?;
    check_request(request)?;
    let (kind, payload) = match request {
        Request::Open(_) => (Kind::Open, None),
        Request::Append(append) => (Kind::Append, Some(append.batch.clone())),
        Request::Lookup(_) => (Kind::Lookup, None),
        Request::Resolve(_) => (Kind::Resolve, None),
        Request::Retire(_) => (Kind::Retire, None),
        Request::List(_) => (Kind::List, None),
        Request::End => (Kind::End, None),
        Request::Status => (Kind::Status, None),
        Request::Subscribe(_) => (Kind::Subscribe, None),
        Request::OpenSession(_) => (Kind::OpenSession, None),
        Request::KeepAlive(_) => (Kind::KeepAlive, None),
    };
    Frame::build(kind, id, payload.into_iter().collect(), |body| {
        put(&(size_of(context) as u32), body);
        put(context, body);
        match request {
            Request::Open(open) => put(open, body),
            Request::Append(Append { acks, settled, expect_end, batch: _ }) => {
                put(&AppendBody { acks: *acks, settled: *settled, expect_end: *expect_end }, body);
            }
            Request::Lookup(lookup) => put(lookup, body),
            Request::Resolve(resolve) => put(resolve, body),
            Request::Retire(retire) => put(retire, body),
            Request::List(list) => put(list, body),
            Request::End | Request::Status => {}
            Request::Subscribe(subscribe) => put(subscribe, body),
            Request::OpenSession(open) => put(open, body),
            Request::KeepAlive(alive) => put(alive, body),
        }
    })
}

/// The frame of an answer.
///
/// # Errors
///
/// [`Refusal::TooLarge`] if the answer takes more than a frame may: only a delivery can.
pub fn encode_response(id: RequestId, response: &Response) -> Result<Frame, Refusal> {
    let payload = match response {
        Response::Delivery(delivery) => delivery.stretches.clone(),
        _ => Vec::new(),
    };
    Frame::build(response_kind(response), id, payload, |body| put_body(response, body))
}

/// Puts the frame of an answer behind those that are there, without a piece of memory of its own.
///
/// # Errors
///
/// Those of [`encode_response`]; nothing is put there then.
///
/// # Panics
///
/// If it is a delivery: its payload is not to be copied.
pub fn put_response(into: &mut BytesMut, id: RequestId, response: &Response) -> Result<(), Refusal> {
    assert!(!matches!(response, Response::Delivery(_)), "a delivery has a payload");
    put_head(into, response_kind(response), id, 0, |body| put_body(response, body))
}

fn response_kind(response: &Response) -> Kind {
    match response {
        Response::Opened(_) => Kind::Opened,
        Response::Appended(_) => Kind::Appended,
        Response::Accepted(_) => Kind::Accepted,
        Response::Found(_) => Kind::Found,
        Response::Alive(_) => Kind::Alive,
        Response::Resolved(_) => Kind::Resolved,
        Response::Retired(_) => Kind::Retired,
        Response::Listed(_) => Kind::Listed,
        Response::End(_) => Kind::EndIs,
        Response::Status(_) => Kind::StatusIs,
        Response::Leads(_) => Kind::Leads,
        Response::Delivery(_) => Kind::Delivery,
        Response::Refused(_) => Kind::Refused,
    }
}

fn put_body(response: &Response, body: &mut BytesMut) {
    match response {
        Response::Opened(producer) | Response::Found(producer) => put(producer, body),
        Response::Appended(appended) | Response::Accepted(appended) => put(appended, body),
        Response::Alive(alive) => put(alive, body),
        Response::Resolved(resolved) => put(resolved, body),
        Response::Retired(retired) => put(retired, body),
        Response::Listed(listed) => put(listed, body),
        Response::End(end) => put(end, body),
        Response::Status(status) => put(status, body),
        Response::Leads(leads) => put(leads, body),
        Response::Delivery(Delivery { next, end, names, stretches: _ }) => {
            put(&DeliveryBody { next: *next, end: *end, names: names.clone() }, body);
        }
        Response::Refused(refusal) => put(refusal, body),
    }
}

/// Where postcard writes to.
struct Into<'a>(&'a mut BytesMut);

impl Flavor for Into<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Why postcard cannot fail here: it does not know what to do with a map or a sequence of unknown length, and nothing else can
/// go wrong.
const HAS_A_FORM: &str = "a message without maps and references always has a postcard form";

fn put<T: Serialize>(value: &T, into: &mut BytesMut) {
    postcard::serialize_with_flavor(value, Into(into)).expect(HAS_A_FORM);
}

fn size_of<T: Serialize>(value: &T) -> usize {
    postcard::serialize_with_flavor(value, Size::default()).expect(HAS_A_FORM)
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
