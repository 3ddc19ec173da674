//! Exchanges of requests and responses, drawn at random from all that HTTP/1.1 allows and proxies tend to get wrong.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::select, strategy::Union};

/// Fields of a head or of trailers, values as they stand on the wire.
pub(crate) type Fields = Vec<(&'static str, Bytes)>;

/// What goes over one connection, and perhaps over its successors.
#[derive(Debug, Clone)]
pub(crate) struct Talk {
    pub(crate) exchanges: Vec<Exchange>,
    /// All requests are sent before any response is read.
    pub(crate) is_pipelined: bool,
}

/// A request, and what the origin does about it.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) fields: Fields,
    pub(crate) body: Body,
    pub(crate) expects: Option<Expectation>,
    pub(crate) answer: Answer,
    pub(crate) closes: Closes,
}

/// What the origin says to a request that waits for a 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expectation {
    Continued,
    /// It answers at once, and reads no more.
    Refused,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Heads in front of the answer.
    pub(crate) informational: Vec<u16>,
    pub(crate) status: &'static str,
    pub(crate) fields: Fields,
    pub(crate) body: Body,
    /// Before the body of the request was read.
    pub(crate) is_early: bool,
    /// It switches protocols.
    pub(crate) raw: Option<Raw>,
}

/// Whether a connection ends with an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closes {
    Nobody,
    Caller,
    Origin,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    None,
    Length(Bytes),
    Chunked(Vec<Bytes>, Fields),
    /// Until the end of the connection; of responses only.
    Close(Bytes),
}

/// What goes over a connection after a 101.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    /// By turns, the caller begins.
    pub(crate) turns: Vec<Bytes>,
    /// Which side ends its half first; the other has something to say after it.
    pub(crate) caller_ends_first: bool,
}

impl Talk {
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        (vec(Exchange::any(), 1..6), any::<bool>(), option::weighted(0.3, Raw::any())).prop_map(
            |(mut exchanges, is_pipelined, raw)| {
                let last = exchanges.len() - 1;
                for exchange in &mut exchanges[..last] {
                    exchange.stays_open();
                }
                if let Some(raw) = raw {
                    exchanges[last].upgrades(raw);
                }
                let waits = exchanges.iter().any(|exchange| exchange.expects.is_some());
                Self { exchanges, is_pipelined: is_pipelined && !waits }
            },
        )
    }
}

impl Exchange {
    fn any() -> impl Strategy<Value = Self> {
        let closes = select(vec![Closes::Nobody, Closes::Nobody, Closes::Caller, Closes::Origin]);
        let expects = prop_oneof![
            4 => Just(None),
            1 => Just(Some(Expectation::Continued)),
            1 => Just(Some(Expectation::Refused)),
        ];
        (select(METHODS), path(), fields(REQUEST_NAMES), Body::any(false), expects, Answer::any(), closes).prop_map(
            |(method, path, fields, body, expects, answer, closes)| {
                // The server as a whole is no resource: only one method has this form.
                let path = if method == "OPTIONS" && path.len() == 1 { "*".to_owned() } else { path };
                let mut exchange = Self { method, path, fields, body, expects, answer, closes };
                if exchange.body.is_empty() {
                    exchange.expects = None;
                }
                if exchange.expects == Some(Expectation::Refused) {
                    exchange.answer.is_early = true;
                    exchange.answer.status = "417 Expectation Failed";
                    exchange.answer.body = Body::Length(Bytes::from_static(b"no"));
                }
                if matches!(exchange.answer.body, Body::Close(_)) {
                    exchange.closes = Closes::Origin;
                }
                // A client may stop sending when an answer is the last one; and hyper's server keeps trailers that come
                // after an answer until the next request.
                exchange.answer.is_early &= exchange.closes != Closes::Origin && !exchange.body.has_trailers();
                exchange
            },
        )
    }

    /// Leaves out what depends on who is faster, for a client that neither waits for a 100 nor sends on after an answer.
    pub(crate) fn without_races(&mut self) {
        self.expects = None;
        self.answer.is_early = false;
    }

    /// Another exchange is to follow on its connection.
    fn stays_open(&mut self) {
        self.closes = Closes::Nobody;
        if let Body::Close(data) = &mut self.answer.body {
            self.answer.body = Body::Length(std::mem::take(data));
        }
    }

    fn upgrades(&mut self, raw: Raw) {
        (self.method, self.body, self.expects) = ("GET", Body::None, None);
        (self.answer.status, self.answer.body, self.answer.is_early) = ("101 Switching Protocols", Body::None, false);
        self.answer.raw = Some(raw);
        self.closes = Closes::Nobody;
    }
}

impl Answer {
    fn any() -> impl Strategy<Value = Self> {
        let informational = vec(select(vec![102, 103]), 0..3);
        let is_early = prop_oneof![3 => Just(false), 1 => Just(true)];
        (informational, select(STATUSES), fields(RESPONSE_NAMES), Body::any(true), is_early).prop_map(
            |(informational, status, fields, mut body, is_early)| {
                // hyper's server leaves out the length that a 304 may have.
                if status.starts_with("204") || status.starts_with("304") {
                    body = Body::None;
                } else if matches!(body, Body::None) {
                    body = Body::Length(Bytes::new());
                }
                Self { informational, status, fields, body, is_early, raw: None }
            },
        )
    }
}

impl Body {
    fn any(may_close: bool) -> impl Strategy<Value = Self> {
        let chunks = vec(bytes(1), 0..5);
        let mut kinds = vec![
            Just(Self::None).boxed(),
            bytes(0).prop_map(Self::Length).boxed(),
            (chunks, fields(TRAILERS)).prop_map(|(chunks, trailers)| Self::Chunked(chunks, trailers)).boxed(),
        ];
        if may_close {
            kinds.push(bytes(0).prop_map(Self::Close).boxed());
        }
        Union::new(kinds)
    }

    fn has_trailers(&self) -> bool {
        matches!(self, Self::Chunked(_, trailers) if !trailers.is_empty())
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::Length(data) | Self::Close(data) => data.is_empty(),
            Self::Chunked(..) => false,
        }
    }
}

impl Raw {
    fn any() -> impl Strategy<Value = Self> {
        (vec(bytes(0), 0..6), any::<bool>()).prop_map(|(turns, caller_ends_first)| Self { turns, caller_ends_first })
    }
}

/// Mostly few, sometimes more than buffers between hold at a time.
fn bytes(min: usize) -> impl Strategy<Value = Bytes> {
    let large = (any::<u8>(), 20_000..30_000_usize).prop_map(|(byte, n)| vec![byte; n]);
    prop_oneof![8 => vec(any::<u8>(), min..50), 1 => large].prop_map(Bytes::from)
}

/// A path and a query, of all bytes that hyper takes in them.
fn path() -> impl Strategy<Value = String> {
    let piece = || prop_oneof![4 => "[!$-;=@-_a-z|~\"{}]{0,6}", 1 => select(ODD).prop_map(str::to_owned)];
    let query = prop_oneof![3 => "[!$-;=?-~]{0,8}", 1 => select(ODD).prop_map(str::to_owned)];
    (vec(piece(), 1..4), option::of(query)).prop_map(|(pieces, query)| {
        let query = query.map(|query| format!("?{query}"));
        format!("/{}{}", pieces.join("/"), query.unwrap_or_default())
    })
}

fn fields(names: &'static [&'static str]) -> impl Strategy<Value = Fields> {
    // With white space around, which is none of the value, and bytes beyond ASCII.
    let value = prop_oneof![
        3 => "[ -~]{0,20}".prop_map(String::into_bytes),
        1 => "[ \t]{0,3}[!-~]{1,5}[ \t,]{0,3}[!-~]{0,5}[ \t]{0,3}".prop_map(String::into_bytes),
        1 => vec(0x80..=0xff_u8, 1..5),
    ];
    vec((select(names), value.prop_map(Bytes::from)), 0..6)
}

const METHODS: &[&str] = &[
    "GET",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "PROPFIND",
    "M-SEARCH",
    "get",
    "X!#$%&'*+.^_`|~",
];

const STATUSES: &[&str] = &[
    "200 OK",
    "200 Fine, (really) *fine*",
    "201 Created",
    "204 No Content",
    "206 Partial Content",
    "302 Found",
    "304 Not Modified",
    "401 Unauthorized",
    "404 Not Found",
    "418 I'm a teapot",
    "500 Internal Server Error",
    "503 Service Unavailable",
    "299 Miscellaneous",
    "799 Beyond",
];

const REQUEST_NAMES: &[&str] = &[
    "Accept",
    "accept-encoding",
    "Authorization",
    "Cookie",
    "Content-Type",
    "Range",
    "If-None-Match",
    "Via",
    "Max-Forwards",
    "Origin",
    "User-Agent",
    "X-Twice",
    "x-twice",
    "X_under.dot!#$%&'*+^`|~",
    "0",
];

const RESPONSE_NAMES: &[&str] = &[
    "Content-Type",
    "Content-Encoding",
    "Set-Cookie",
    "set-cookie",
    "Date",
    "ETag",
    "Location",
    "Server",
    "Vary",
    "Via",
    "WWW-Authenticate",
    "Retry-After",
    "Alt-Svc",
    "X-Twice",
    "x-twice",
    "X_under.dot!#$%&'*+^`|~",
];

const TRAILERS: &[&str] = &["X-Sum", "X-Twice", "x-twice", "Server-Timing"];

const ODD: &[&str] = &[
    "%2F..%2f%00",
    "..",
    ".",
    "",
    "%zz%",
    "a;b=c,d",
    "caf\u{e9}",
    "\u{65e5}\u{672c}",
    "http://other/",
    "a&&=b=c",
    "+%20+",
];
