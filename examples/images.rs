//! A pipeline for photos: resize one, then write its metadata, add it to the stream and notify, all three at the same time.
//!
//!     cargo run -p laneway-examples --example images -- worker [ENDPOINT]
//!     cargo run -p laneway-examples --example images -- FOLDER [ENDPOINT]      every .ppm file in it
//!
//! Files are binary PPM, which needs no library: `convert photo.jpg photo.ppm` makes one. Each photo is a group of its own. When
//! a file is no image, its resize is dead with the reason, and what comes after it is cancelled.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use laneway::{Batch, Client, Context, Failure, Task, Worker};
use serde_json::{Value, json};

const WIDTH: usize = 64;

/// Width, height, and three bytes for each pixel.
fn read(path: &Path) -> Result<(usize, usize, Vec<u8>), Failure> {
    let bytes = std::fs::read(path)?;
    let no_image = || Failure::dead(format!("{}: no binary PPM of 8 bits", path.display()));
    // "P6 WIDTH HEIGHT 255", then one blank and the pixels.
    let mut words = bytes.splitn(5, u8::is_ascii_whitespace).map(String::from_utf8_lossy);
    let mut word = || words.next().ok_or_else(no_image);
    if word()? != "P6" {
        return Err(no_image());
    }
    let mut number = || word()?.parse::<usize>().map_err(|_| no_image());
    let (width, height, depth) = (number()?, number()?, number()?);
    let pixels = width * height * 3;
    if depth != 255 || pixels == 0 || bytes.len() < pixels {
        return Err(no_image());
    }
    Ok((width, height, bytes[bytes.len() - pixels..].to_vec()))
}

#[expect(clippy::needless_pass_by_value, reason = "a handler owns its payload")]
fn resize(path: PathBuf, _: &Context) -> Result<PathBuf, Failure> {
    let (width, height, pixels) = read(&path)?;
    let (to_width, to_height) = (WIDTH.min(width), (height * WIDTH.min(width) / width).max(1));
    let mut small = format!("P6\n{to_width} {to_height}\n255\n").into_bytes();
    for at in 0..to_width * to_height {
        let (x, y) = (at % to_width * width / to_width, at / to_width * height / to_height);
        small.extend(&pixels[(y * width + x) * 3..][..3]);
    }
    let to = path.with_extension("small.ppm");
    std::fs::write(&to, small)?;
    Ok(to)
}

/// The result of the one task before this one: where the small image is.
fn small(ctx: &Context) -> Result<PathBuf, Failure> {
    let parents = ctx.parents()?;
    Ok(parents.first().ok_or_else(|| Failure::dead("nothing came before"))?.result()?)
}

fn metadata(_: Value, ctx: &Context) -> Result<Value, Failure> {
    let (width, height, pixels) = read(&small(ctx)?)?;
    let sum = |channel| pixels.iter().skip(channel).step_by(3).map(|byte| usize::from(*byte)).sum::<usize>();
    let mean = [0, 1, 2].map(|channel| sum(channel) / (width * height));
    Ok(json!({ "width": width, "height": height, "mean": mean }))
}

/// Adds a line to a file beside the photo. Done twice, it would stand there twice, so its id goes with it.
fn append(name: &'static str) -> impl Fn(Value, &Context) -> Result<(), Failure> {
    move |_, ctx| {
        let photo = small(ctx)?;
        let mut file = OpenOptions::new().append(true).create(true).open(photo.with_file_name(name))?;
        Ok(writeln!(file, "{}", json!({ "task": ctx.id(), "photo": photo }))?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let here = "tcp://127.0.0.1:7733";
    if let ["worker", endpoint @ ..] = &words[..] {
        let worker = Worker::builder(*endpoint.first().unwrap_or(&here)).slots(4).handle("photo.resize", resize);
        let worker = worker.handle("photo.metadata", metadata).handle("photo.stream", append("stream.jsonl"));
        worker.handle("photo.notify", append("outbox.jsonl")).build()?.run()?;
        return Ok(());
    }
    let client = Client::connect(words.get(1).unwrap_or(&here))?;
    let mut groups = Vec::new();
    for entry in std::fs::read_dir(words.first().ok_or("which folder?")?)? {
        let path = std::fs::canonicalize(entry?.path())?;
        let name = path.display().to_string();
        let is_photo = path.extension().is_some_and(|extension| extension == "ppm");
        if is_photo && !name.ends_with(".small.ppm") {
            let after = ["photo.metadata", "photo.stream", "photo.notify"].map(|kind| Task::new(kind).after_number(0));
            let batch = Batch::new().name(&*name).task(Task::new("photo.resize").payload(&path)).tasks(after);
            groups.push((name, client.submit_batch(batch)?));
        }
    }
    for (name, batch) in groups {
        let row = client.wait_group(batch.group, None, |_| ())?;
        let metadata = client.wait(batch.tasks[1].task)?;
        println!("{name}: {} of {} done {}", row.done, row.total(), metadata.result::<Value>().unwrap_or(Value::Null));
    }
    Ok(())
}
