//! HTTP/1.1 by hand: a server that has to cut a body at any byte, and to know when the last one went out, must own
//! the socket. hyper was the alternative; it decides by itself what is flushed before a connection is dropped.

use std::io;
use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest request line and headers. Version 007 tokens are long; nothing else is.
const MAX_HEAD: usize = 64 * 1024;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// The longest body of a request: tens of thousands of pushed events.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// A request, read whole.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query, which means nothing to the API.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    keep_alive: bool,
}

impl Request {
    /// One that came from no socket.
    pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Request {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Request {
            method: "GET".to_owned(),
            path: path.to_owned(),
            headers: headers.iter().map(owned).collect(),
            body: Vec::new(),
            keep_alive: true,
        }
    }

    /// The first header of that name, in whatever case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// A response, and where it breaks off.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) framing: Framing,
    /// The connection ends after so many bytes of the body.
    pub(crate) cut: Option<usize>,
}

/// How a client learns where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`, in one chunk.
    Chunked,
    /// The connection's end; HTTP says no better whether that is the body's.
    Close,
}

impl Reply {
    /// A JSON document.
    pub(crate) fn json(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status,
            headers: vec![("Content-Type", "application/json".into())],
            body: body.into(),
            framing: Framing::Length,
            cut: None,
        }
    }

    /// What is sent of the body.
    pub(crate) fn sent(&self) -> &[u8] {
        &self.body[..self.cut.unwrap_or(self.body.len())]
    }

    /// Whether a client knows from HTTP that it has all of the body.
    pub(crate) fn tells_its_end(&self) -> bool {
        self.cut.is_none() && self.framing != Framing::Close
    }

    /// The bytes to send, and where among them the body begins.
    fn wire(&self, keep_alive: bool) -> (Vec<u8>, usize) {
        let mut wire = head(self.status, &self.headers);
        let length = self.body.len();
        match self.framing {
            Framing::Length => {
                wire.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
            }
            Framing::Chunked => wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::Close => {}
        }
        if !keep_alive || self.framing == Framing::Close {
            wire.extend_from_slice(b"Connection: close\r\n");
        }
        wire.extend_from_slice(b"\r\n");
        // The last chunk is the empty one, so an empty body has no other.
        let chunked = self.framing == Framing::Chunked && length > 0;
        if chunked {
            wire.extend_from_slice(format!("{length:x}\r\n").as_bytes());
        }
        let body_at = wire.len();
        wire.extend_from_slice(self.sent());
        if self.cut.is_none() && self.framing == Framing::Chunked {
            let end: &[u8] = if chunked {
                b"\r\n0\r\n\r\n"
            } else {
                b"0\r\n\r\n"
            };
            wire.extend_from_slice(end);
        }
        (wire, body_at)
    }
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    /// What was read of requests to come.
    buffer: Vec<u8>,
    keep_alive: bool,
}

/// The client went away while a response was sent.
#[derive(Debug)]
pub(crate) struct BrokenOff {
    /// How many bytes of the body the socket had taken.
    pub(crate) body_bytes: usize,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream) -> Connection {
        Connection {
            socket,
            buffer: Vec::new(),
            keep_alive: true,
        }
    }

    /// The next request; `None` once there will be none. Nothing is lost if the future is dropped.
    pub(crate) async fn request(&mut self) -> io::Result<Option<Request>> {
        if !self.keep_alive {
            return Ok(None);
        }
        loop {
            if let Some(request) = parse(&mut self.buffer)? {
                self.keep_alive = request.keep_alive;
                return Ok(Some(request));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Sends a response. A reply that is cut ends the connection.
    pub(crate) async fn reply(&mut self, reply: &Reply) -> Result<(), BrokenOff> {
        let (wire, body_at) = reply.wire(self.keep_alive);
        let mut sent = 0;
        while sent < wire.len() {
            match self.socket.write(&wire[sent..]).await {
                Ok(count) if count > 0 => sent += count,
                _ => {
                    self.keep_alive = false;
                    return Err(BrokenOff {
                        body_bytes: sent.saturating_sub(body_at).min(reply.body.len()),
                    });
                }
            }
        }
        if !reply.tells_its_end() {
            self.hang_up().await;
        }
        Ok(())
    }

    /// Sends documents as they are made, in chunks.
    pub(crate) async fn stream(
        &mut self,
        content_type: &str,
        chunks: impl Iterator<Item = Vec<u8>>,
    ) -> io::Result<()> {
        let mut head = head(200, &[("Content-Type", content_type.to_owned())]);
        head.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        self.socket.write_all(&head).await?;
        for chunk in chunks.filter(|chunk| !chunk.is_empty()) {
            self.socket
                .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                .await?;
            self.socket.write_all(&chunk).await?;
            self.socket.write_all(b"\r\n").await?;
        }
        self.socket.write_all(b"0\r\n\r\n").await
    }

    /// Ends the connection. What was sent still arrives.
    pub(crate) async fn hang_up(&mut self) {
        self.keep_alive = false;
        let _ = self.socket.shutdown().await;
    }
}

/// Takes a request from the front of `buffer`, if it is there whole.
fn parse(buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let refuse = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut fields);
    let head = match parsed
        .parse(buffer)
        .map_err(|error| refuse(&error.to_string()))?
    {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial if buffer.len() > MAX_HEAD => {
            return Err(refuse("the headers are too long"));
        }
        httparse::Status::Partial => return Ok(None),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|field| (field.name.to_owned(), text(field.value)))
        .collect();
    if header(&headers, "transfer-encoding").is_some() {
        return Err(refuse("a request's body needs a Content-Length"));
    }
    let length = match header(&headers, "content-length") {
        None => 0,
        Some(value) => value
            .parse::<usize>()
            .map_err(|_| refuse("Content-Length is no number"))?,
    };
    if length > MAX_BODY {
        return Err(refuse("the body is too long"));
    }
    let Some(body) = buffer.get(head..head + length) else {
        return Ok(None);
    };
    let closes =
        header(&headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let path = parsed.path.unwrap_or_default();
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.split('?').next().unwrap_or_default().to_owned(),
        keep_alive: parsed.version == Some(1) && !closes,
        body: body.to_vec(),
        headers,
    };
    buffer.drain(..head + length);
    Ok(Some(request))
}

fn head(status: u16, headers: &[(&'static str, String)]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    head.push_str("Date: ");
    head.push_str(&httpdate::fmt_http_date(SystemTime::now()));
    head.push_str("\r\n");
    for (name, value) in headers {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_one_by_one_however_they_arrive() {
        let wire = b"PUT /a/b?c=d HTTP/1.1\r\nContent-Length: 3\r\nX-Y: z\r\n\r\nxyzGET / HTTP/1.0\r\n\r\n";
        let mut buffer = Vec::new();
        let mut taken = Vec::new();
        for byte in wire {
            buffer.push(*byte);
            taken.extend(parse(&mut buffer).unwrap());
        }
        assert_eq!(taken.len(), 2);
        assert_eq!(
            (taken[0].method.as_str(), taken[0].path.as_str()),
            ("PUT", "/a/b")
        );
        assert_eq!(
            (taken[0].body.as_slice(), taken[0].header("x-y")),
            (b"xyz".as_slice(), Some("z"))
        );
        assert_eq!((taken[0].keep_alive, taken[1].keep_alive), (true, false));
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_is_too_long_or_not_http_is_refused() {
        let refused = |wire: &[u8]| parse(&mut wire.to_vec()).is_err();
        assert!(refused(b"\0\0\0\r\n\r\n"));
        assert!(refused(
            format!("GET /{} HTTP/1.1\r\n", "x".repeat(MAX_HEAD)).as_bytes()
        ));
        assert!(refused(
            b"PUT / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"
        ));
        assert!(refused(
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
    }

    #[test]
    fn a_cut_ends_the_wire_at_its_byte() {
        for framing in [Framing::Length, Framing::Chunked, Framing::Close] {
            for cut in 0..5 {
                let mut reply = Reply::json(200, *b"01234");
                reply.framing = framing;
                reply.cut = Some(cut);
                let (wire, body_at) = reply.wire(true);
                assert_eq!(&wire[body_at..], &b"01234"[..cut]);
            }
        }
    }
}
