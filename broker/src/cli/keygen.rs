//! `laneway keygen`: a new key pair as two files, the secret one for its owner and the public one for everybody else.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use laneway::curve::KeyPair;
use tempfile::{NamedTempFile, PersistError};

use super::output;
use crate::access::{Role, words};
use crate::error::Error;

/// Make a key pair for CURVE
///
/// Writes NAME.secret, which only its owner may read, and NAME.public. A peer needs its own secret file and the broker's public
/// one; the broker needs its own secret file and, in its folder of keys, the public files of its peers with their roles. Never
/// writes over a file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway keygen broker
  laneway keygen web --roles submit --dir /etc/web
  laneway keygen thumbs --roles work")]
pub(super) struct KeygenArgs {
    /// The files' name, 1 to 64 letters, digits, dots, dashes and underscores
    #[arg(value_parser = name)]
    name: String,

    /// What the key may do, written into the public file: work, submit, read, admin [default: nothing]
    #[arg(long, value_name = "ROLE,...", value_delimiter = ',')]
    roles: Vec<Role>,

    /// The folder to write to [default: the current one]
    #[arg(long, value_name = "FOLDER", default_value = ".", hide_default_value = true)]
    dir: PathBuf,
}

const NAME_CHARS_MAX: usize = 64;

fn name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() || text.len() > NAME_CHARS_MAX || text.starts_with('.') || !text.chars().all(good) {
        return Err(format!(
            "must be 1 to {NAME_CHARS_MAX} letters, digits, dots, dashes and underscores, and begin with no dot"
        ));
    }
    Ok(text.into())
}

pub(super) fn run(args: &KeygenArgs) -> Result<(), Error> {
    let path = |ending: &str| args.dir.join(format!("{}.{ending}", args.name));
    let (secret, public) = (path("secret"), path("public"));
    // Before the first of them is written: a pair of an old half and a new one would be no pair.
    if let Some(there) = [&secret, &public].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Error::Usage(format!("{} is there already: remove it, or choose another name", there.display())));
    }
    let pair = KeyPair::generate()?;
    let roles = args.roles.iter().map(|role| format!("\"{}\"", role.as_str())).collect::<Vec<_>>().join(", ");
    let secret_text = format!("public_key = \"{}\"\nsecret_key = \"{}\"\n", pair.public(), pair.secret_text());
    let public_text = format!("public_key = \"{}\"\nroles = [{roles}]\n", pair.public());
    // Both whole under hidden names first, then both to be seen, or neither.
    let (secret_file, public_file) = (write(&secret, 0o600, &secret_text)?, write(&public, 0o644, &public_text)?);
    let fail = |path: &Path, error: PersistError| Error::other(format!("write {}", path.display()), error.error);
    secret_file.persist_noclobber(&secret).map_err(|error| fail(&secret, error))?;
    public_file.persist_noclobber(&public).map_err(|error| {
        std::fs::remove_file(&secret).ok();
        fail(&public, error)
    })?;
    output::line(&format!("{}  keep it here, it is secret", secret.display()))?;
    let may = match &args.roles[..] {
        [] => "nothing".into(),
        roles => words(roles),
    };
    output::line(&format!("{}  for the other side; in a broker's folder of keys it may: {may}", public.display()))
}

/// A file beside `path`, hidden until it is whole and takes that name.
pub(super) fn write(path: &Path, mode: u32, text: &str) -> Result<NamedTempFile, Error> {
    let fail = |error| Error::other(format!("write {}", path.display()), error);
    let folder = path.parent().unwrap_or(Path::new("."));
    // Hidden until it is whole: a broker may read the folder meanwhile.
    let mut file = tempfile::Builder::new().prefix(".").tempfile_in(folder).map_err(fail)?;
    file.write_all(text.as_bytes()).map_err(fail)?;
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    Ok(file)
}
