//! The dashboard alone, for a broker that runs already: `cargo run -p laneway-web --example serve -- ADDR DB ENDPOINT`.

use std::net::SocketAddr;

use laneway_web::{Settings, start};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [bind, db, endpoint] = words.as_slice() else {
        return Err("say ADDR DB ENDPOINT".into());
    };
    laneway::seed_libzmq();
    let bind: SocketAddr = bind.parse()?;
    let web = start(Settings::new(bind, db.into(), endpoint.clone()))?;
    eprintln!("http://{}/", web.address());
    while !web.has_ended() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    web.stop();
    Ok(())
}
