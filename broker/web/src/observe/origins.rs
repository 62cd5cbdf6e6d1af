//! Which pages may read what an observer link shows: the origins of the settings, by the headers of CORS
//! (<https://fetch.spec.whatwg.org/#http-cors-protocol>). A browser keeps to them; a program asks without an origin.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::failure::Failure;
use crate::limits::ORIGINS_MAX;

/// Every page, those of files and sandboxes too.
const ALL: &str = "*";
/// How long a browser need not ask again before it asks.
const PREFLIGHT_S: &str = "600";
const HOST_CHARS_MAX: usize = 253;

/// Whether each of `web.cors_origins` is an origin as browsers write it, or `*` stands alone; at most 64. Fails with the value
/// that is wrong, and the reason, which follows it in the message.
pub fn check_list(origins: &[String]) -> Result<(), (String, String)> {
    if origins.len() > ORIGINS_MAX {
        return Err((format!("a list of {}", origins.len()), format!("must have at most {ORIGINS_MAX} origins")));
    }
    for (n, origin) in origins.iter().enumerate() {
        let wrong = |why: &str| Err((format!("'{origin}'"), why.to_owned()));
        if origin == ALL && origins.len() > 1 {
            return wrong("is every origin, so it must stand alone");
        }
        if origin != ALL && !is_origin(origin) {
            return wrong(
                "must be an origin as browsers write it, in small letters and without a path, such as \
                 https://www.example.com or http://localhost:8000, or * for all",
            );
        }
        if origins[..n].contains(origin) {
            return wrong("stands twice in the list");
        }
    }
    Ok(())
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    // A browser leaves the scheme's own port out.
    let usual = if scheme == "https" { "443" } else { "80" };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|n| n > 0 && n.to_string() == port) && port != usual;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == ip),
        None => !host.is_empty() && host.len() <= HOST_CHARS_MAX && host.chars().all(is_name),
    };
    matches!(scheme, "http" | "https") && is_host && port.is_none_or(is_port)
}

/// Refuses what comes from a page of an origin that is not in the list: its browser would hide the answer anyway, and a stream
/// would take a place for nothing. Our own pages are at `host`.
pub(crate) fn check(origins: &[String], headers: &HeaderMap, host: &str) -> Result<(), Failure> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("?");
    let is_own = origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host));
    if is_own || allowed(origins, origin).is_some() {
        return Ok(());
    }
    let text = format!("pages of {origin} may not show this");
    Err(Failure::new(StatusCode::FORBIDDEN, "origin", text).next("add the origin to web.cors_origins"))
}

/// What is said of an origin that may read the answer.
fn allowed<'a>(origins: &[String], origin: &'a str) -> Option<&'a str> {
    match origins.first().map(String::as_str) {
        Some(ALL) => Some(ALL),
        _ => origins.iter().any(|known| known == origin).then_some(origin),
    }
}

/// The headers that let pages of others use an answer. The script is for all of them, whoever may read what it shows.
pub(crate) fn share(origins: &[String], path: &str, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("cross-origin"));
    if path == "/widget.js" {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static(ALL));
        return;
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let origin = origin.and_then(|origin| origin.to_str().ok());
    let value = origin.and_then(|origin| allowed(origins, origin)).map(HeaderValue::from_str);
    if let Some(Ok(value)) = value {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
    }
}

/// Before a request that is not plain, a browser asks whether it may.
pub(crate) fn preflight() -> Response {
    let head = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "last-event-id, cache-control"),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_S),
    ];
    (StatusCode::NO_CONTENT, head).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(origins: &[&str]) -> Vec<String> {
        origins.iter().map(|origin| (*origin).to_owned()).collect()
    }

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        // Proves that a slip, which no browser would ever send, is told at the start.
        for good in [
            "https://www.example.com",
            "http://localhost:8000",
            "http://127.0.0.1:8000",
            "http://[::1]:8000",
            "http://[::1]",
        ] {
            assert_eq!(check_list(&list(&[good])), Ok(()), "{good}");
        }
        assert_eq!(check_list(&[]), Ok(()));
        assert_eq!(check_list(&list(&["*"])), Ok(()));
        for wrong in [
            "",
            "example.com",
            "https://",
            "https://a.example/",
            "https://a.example/x",
            "https://A.example",
            "https://a.example:443",
            "http://a.example:80",
            "http://a.example:080",
            "ftp://a.example",
            "https://a.example:x",
            "https://*.example",
            "null",
            "http://[::1",
            "http://[0::1]",
        ] {
            let (value, reason) = check_list(&list(&[wrong])).unwrap_err();
            assert!(value.contains(wrong) && reason.contains("as browsers write it"), "{wrong}: {reason}");
        }
        assert!(check_list(&list(&["*", "https://a.example"])).unwrap_err().1.contains("stand alone"));
        assert!(check_list(&list(&["https://a.example", "https://a.example"])).unwrap_err().1.contains("twice"));
        let many: Vec<String> = (0..=ORIGINS_MAX).map(|n| format!("https://{n}.example")).collect();
        assert_eq!(check_list(&many).unwrap_err().0, "a list of 65");
    }

    #[test]
    fn only_pages_of_the_list_may_read() {
        // Proves who gets an answer and with which header: a program, our own page, one of the list, another, a sandboxed one.
        let asks = |origins: &[&str], origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin))));
            let is_let_in = check(&list(origins), &headers, "broker.example:9730").is_ok();
            let mut answer = HeaderMap::new();
            share(&list(origins), "/observe/x/state", headers.get(header::ORIGIN), &mut answer);
            let value = answer.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(answer[header::VARY], "Origin");
            (is_let_in, value)
        };
        let page = "https://www.example.com";
        assert_eq!(asks(&[], None), (true, None));
        assert_eq!(asks(&[], Some("http://broker.example:9730")), (true, None));
        assert_eq!(asks(&[], Some(page)), (false, None));
        assert_eq!(asks(&[page], Some(page)), (true, Some(page.into())));
        assert_eq!(asks(&[page], Some("https://evil.example")), (false, None));
        assert_eq!(asks(&[page], Some("null")), (false, None));
        assert_eq!(asks(&["*"], Some("null")), (true, Some("*".into())));
    }
}
