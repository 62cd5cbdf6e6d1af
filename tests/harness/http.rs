//! A client of HTTP/1.1 that a test can see through: one request, one connection, the answer as it came.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::{Broker, wait_for};

/// Where a dashboard is, and what is said with every request.
pub(crate) struct Http {
    address: String,
    headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answered {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless it has this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        self
    }

    /// Of a header, named in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line[name.len() + 1..].trim())
    }
}

impl Http {
    pub(crate) fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), headers: Vec::new() }
    }

    /// Of a broker that was started with `--web`, which tells its address in the log.
    pub(crate) fn of(broker: &Broker) -> Self {
        Self::at(wait_for("the dashboard's address", || {
            let lines = broker.log().into_iter().rev();
            lines
                .filter(|line| line["message"] == "dashboard")
                .find_map(|line| Some(line["address"].as_str()?.to_owned()))
        }))
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The same with one more header.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        headers.push((name.into(), value.into()));
        Self { address: self.address.clone(), headers }
    }

    pub(crate) fn get(&self, path: &str) -> Answered {
        self.ask("GET", path, "")
    }

    /// Sends a form.
    pub(crate) fn post(&self, path: &str, form: &str) -> Answered {
        self.with("content-type", "application/x-www-form-urlencoded").ask("POST", path, form)
    }

    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Answered {
        self.with("content-type", "application/json").ask("POST", path, &body.to_string())
    }

    /// Begins a request whose answer never ends, and gives the connection.
    pub(crate) fn open(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(self.request("GET", path, "").as_bytes()).unwrap();
        stream
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        use std::fmt::Write as _;
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            write!(request, "host: {}\r\n", self.address).unwrap();
        }
        for (name, value) in &self.headers {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        write!(request, "connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        request
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answered {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream.write_all(self.request(method, path, body).as_bytes()).unwrap();
        let (mut bytes, mut piece) = (Vec::new(), [0; 16 * 1024]);
        // Some servers leave the connection open all the same.
        while !is_whole(&bytes) {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => bytes.extend_from_slice(&piece[..n]),
                // A machine that stood still for a moment: a read with a time limit ends with it.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{method} {path}: {error}"),
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunked(body)
        } else {
            body.into()
        };
        Answered { status: status.unwrap_or_else(|| panic!("{path}: {text}")), head: head.into(), body }
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| bytes.len() >= head + 4 + length)
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}
