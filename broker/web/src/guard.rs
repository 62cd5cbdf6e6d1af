//! What stands before every handler: is it this host that is meant, who asks, may they, and from where. And the headers that keep
//! a page from being used against its reader.
//!
//! | rule | against |
//! |---|---|
//! | on loopback the host must be this machine's own name, or none in HTTP/1.0 | a page elsewhere whose name is made to lead here (DNS rebinding) |
//! | a known token or password, where there is an access file | everybody else |
//! | a wrong one is answered late, and few at a time | guesses |
//! | a write needs the role admin, and not `--read-only` | slips |
//! | a write comes from our own pages or from no page at all | forms and scripts of other pages (CSRF) |
//! | what an observer link shows is read by pages of `web.cors_origins` alone | pages that found a link |
//! | scripts only with the nonce of this very answer | text of a task that turns out to be a script (XSS) |

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Semaphore;

use crate::access::{Role, Visitor};
use crate::app::Shared;
use crate::failure::Failure;
use crate::limits::GUESS_TIME;
use crate::observe::{self, origins};
use crate::pages;

/// Of one answer.
#[derive(Debug, Clone)]
pub(crate) struct Nonce(pub(crate) String);

pub(crate) async fn guard(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    app.count_request();
    let path = request.uri().path().to_owned();
    let nonce = nonce();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let is_guess = request.headers().contains_key(header::AUTHORIZATION);
    let wants_page = is_page(&path) && accepts_html(request.headers());
    let admitted = admit(&app, &path, &request);
    let known = admitted.as_ref().ok().cloned();
    let admitted = admitted.and_then(|visitor| may(&app, &path, &request, &visitor).map(|()| visitor));
    let mut response = match admitted {
        Ok(_) if request.method() == Method::OPTIONS && observe::is_shared(&path) => origins::preflight(),
        Ok(visitor) => {
            request.extensions_mut().insert(visitor.clone());
            request.extensions_mut().insert(nonce.clone());
            let response = next.run(request).await;
            let failure = response.extensions().get::<Failure>().cloned();
            match failure {
                Some(failure) if is_page(&path) => {
                    let allowed = response.headers().get(header::ALLOW).cloned();
                    let mut page = pages::failure(&app, &visitor, &nonce, &failure);
                    page.headers_mut().extend(allowed.map(|methods| (header::ALLOW, methods)));
                    page
                }
                _ => response,
            }
        }
        Err(mut failure) => {
            if failure.status == StatusCode::UNAUTHORIZED && is_guess {
                failure = hold_back(&app.guesses, failure).await;
            }
            match known {
                _ if !wants_page => failure.into_response(),
                Some(visitor) => pages::failure(&app, &visitor, &nonce, &failure),
                None => pages::outside(&app, &failure),
            }
        }
    };
    protect(response.headers_mut(), &nonce);
    if observe::is_shared(&path) {
        origins::share(&app.settings.cors_origins, &path, origin.as_ref(), response.headers_mut());
    }
    response
}

/// A wrong secret is answered late and only so many at a time, so that nobody finds a right one by trying. Whoever has a right
/// one does not wait for that.
async fn hold_back(guesses: &Semaphore, failure: Failure) -> Failure {
    let Ok(_place) = guesses.try_acquire() else { return Failure::too_many_guesses() };
    tokio::time::sleep(GUESS_TIME).await;
    failure
}

fn is_page(path: &str) -> bool {
    !observe::is_shared(path) && !path.starts_with("/api/") && !is_asset(path) && path != "/metrics"
}

/// A browser that shows a page; what its scripts and other programs ask for is answered as JSON.
fn accepts_html(headers: &HeaderMap) -> bool {
    let mut accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    accepts.any(|accept| accept.contains("text/html"))
}

/// Who asks, if they are let in.
fn admit(app: &Shared, path: &str, request: &Request) -> Result<Visitor, Failure> {
    let headers = request.headers();
    let anybody = || Visitor { name: "anybody".into(), role: Role::Read };
    let looks = only_looks(request.method());
    // The page that says so to a browser has a style.
    if is_asset(path) && looks {
        return Ok(anybody());
    }
    let host = host(request, app.settings.bind).ok_or_else(|| {
        Failure::new(StatusCode::BAD_REQUEST, "no_host", "HTTP/1.1 needs the header Host, and there is none")
            .next("say the name or the address that is asked, or speak HTTP/1.0")
    })?;
    if !is_ours(&host, app.settings.bind, &app.settings.hosts) {
        let text = format!("this is not {host}");
        return Err(Failure::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", text)
            .next("say the name that people use in web.hosts"));
    }
    if is_probe(path) && looks {
        return Ok(anybody());
    }
    if observe::is_shared(path) && (looks || request.method() == Method::OPTIONS) {
        // The script is no secret, and a page may load it before anybody knows what it will show.
        if path != "/widget.js" {
            origins::check(&app.settings.cors_origins, headers, &host)?;
        }
        return Ok(anybody());
    }
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    app.access.visitor(authorization).ok_or_else(|| {
        Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", "a token or a password is needed")
            .next("say `Authorization: Bearer TOKEN`, or the name and password of the access file")
    })
}

/// Whether this visitor may do so from there.
fn may(app: &Shared, path: &str, request: &Request, visitor: &Visitor) -> Result<(), Failure> {
    let method = request.method();
    if only_looks(method) || (method == Method::OPTIONS && observe::is_shared(path)) {
        return Ok(());
    }
    let host = host(request, app.settings.bind).unwrap_or_default();
    if !is_same_origin(request.headers(), &host) {
        let text = "a change must come from the dashboard itself, not from another page";
        return Err(Failure::new(StatusCode::FORBIDDEN, "cross_site", text));
    }
    if app.settings.read_only {
        return Err(Failure::new(StatusCode::FORBIDDEN, "read_only", "this dashboard only shows (web.read_only)"));
    }
    if visitor.role < Role::Admin {
        let text = format!("{} may only read", visitor.name);
        return Err(Failure::new(StatusCode::FORBIDDEN, "denied", text));
    }
    Ok(())
}

/// HEAD is a GET without the body: where one is let in, so is the other.
fn only_looks(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whom a request is for, if it says so as its version of HTTP wants it. HTTP/1.0 has no `Host`: whoever leaves it out there, as
/// health checks of balancers do, means the address that was reached. That lets nobody in. A program may say any `Host` as well,
/// and the one visitor who cannot choose it, a browser that a page has led here by another name, speaks HTTP/1.1 and never leaves it out.
fn host(request: &Request, bind: SocketAddr) -> Option<Cow<'_, str>> {
    match request.headers().get(header::HOST) {
        Some(host) => Some(host.to_str().unwrap_or_default().into()),
        None => (request.version() == Version::HTTP_10).then(|| bind.to_string().into()),
    }
}

/// Files that are the same for all.
fn is_asset(path: &str) -> bool {
    path.starts_with("/assets/")
}

/// Of supervisors.
fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// A browser says `Sec-Fetch-Site` where it trusts the connection and `Origin` on every form and script; a program says neither,
/// and no page can make a browser leave out both.
fn is_same_origin(headers: &HeaderMap, host: &str) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin" || site == "none";
    }
    match text(header::ORIGIN) {
        Some(origin) => origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host)),
        None => true,
    }
}

/// Whether the `Host` of a request is a name of this dashboard. Where other machines reach it everybody is asked who they are,
/// and a page that leads here by another name has no password of this one.
fn is_ours(host: &str, bind: SocketAddr, names: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if names.iter().any(|known| known.eq_ignore_ascii_case(bare)) {
        return true;
    }
    if !bind.ip().is_loopback() {
        return names.is_empty() || bare.parse::<IpAddr>().is_ok();
    }
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == bind.ip())
}

fn nonce() -> Nonce {
    let mut bytes = [0; 16];
    // Without random bytes there is no nonce that a script could have: pages then work as without JavaScript.
    match getrandom::fill(&mut bytes) {
        Ok(()) => Nonce(URL_SAFE_NO_PAD.encode(bytes)),
        Err(_) => Nonce(String::new()),
    }
}

fn protect(headers: &mut HeaderMap, nonce: &Nonce) {
    let scripts = if nonce.0.is_empty() { "'none'".to_owned() } else { format!("'nonce-{}'", nonce.0) };
    let policy = format!(
        "default-src 'none'; script-src {scripts}; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Other sites hear nothing. Our own must: a browser says `Origin: null` on a form of a page that hides its address from all.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    let same = HeaderValue::from_static("same-origin");
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), same.clone());
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), same);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_lead_to_a_loopback_dashboard() {
        // Proves the guard against DNS rebinding, and the way to name a host.
        let loopback = "127.0.0.1:9730".parse().unwrap();
        for host in ["localhost:9730", "LOCALHOST", "127.0.0.1:9730", "[::1]:9730", "127.0.0.1"] {
            assert!(is_ours(host, loopback, &[]), "{host}");
        }
        for host in ["evil.example:9730", "localhost.evil.example", "", "192.168.1.4:9730"] {
            assert!(!is_ours(host, loopback, &[]), "{host}");
        }
        let names = ["tasks.example".to_owned()];
        assert!(is_ours("tasks.example:9730", loopback, &names));
        let open = "0.0.0.0:9730".parse().unwrap();
        assert!(is_ours("anything.example", open, &[]));
        assert!(!is_ours("anything.example", open, &names) && is_ours("10.0.0.7:9730", open, &names));
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_secrets_wait_and_those_over_the_bound_are_told_so() {
        // Proves the delay, the bound, and that a place is free again afterwards.
        let guesses = Semaphore::new(1);
        let wrong = || Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", "");
        let begun = tokio::time::Instant::now();
        let both = tokio::join!(hold_back(&guesses, wrong()), hold_back(&guesses, wrong()));
        assert_eq!((both.0.status, both.1.status), (StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(begun.elapsed(), GUESS_TIME);
        assert_eq!(hold_back(&guesses, wrong()).await.status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn a_change_comes_from_our_own_pages_or_from_a_program() {
        // Proves each combination of the two headers that browsers send.
        let check = |pairs: &[(&'static str, &'static str)]| {
            let pairs =
                pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_same_origin(&pairs.collect(), "localhost:9730")
        };
        assert!(check(&[]));
        assert!(check(&[("sec-fetch-site", "same-origin")]) && check(&[("sec-fetch-site", "none")]));
        assert!(check(&[("origin", "http://localhost:9730")]));
        for site in ["cross-site", "same-site", ""] {
            assert!(!check(&[("sec-fetch-site", site), ("origin", "http://localhost:9730")]), "{site}");
        }
        assert!(!check(&[("origin", "http://evil.example")]) && !check(&[("origin", "null")]));
    }
}
