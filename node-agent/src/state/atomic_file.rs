//! Writes files atomically: writes a temporary file in the same directory, then renames it. So a reader sees either the old file or the new
//! file. [`tidy`] removes the temporary files that a crash left.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// The prefix of a temporary file.
const PREFIX: &str = ".bobbin-";
/// The suffix of a temporary file. With this suffix, the runtime does not read the file as a CNI configuration, and other programs do not
/// read it as a `*.json` file.
const SUFFIX: &str = ".tmp";

/// Replaces a file on a tmpfs. Creates the file's directory again if another program removed the directory. The new file survives a crash
/// of this program, but not a crash of the machine.
///
/// # Errors
/// The directory can't be written. The old file is then unchanged.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let pending = match Pending::create(path, mode) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory_of(path))?;
            Pending::create(path, mode)
        }
        created => created,
    };
    pending?.fill(bytes)?.commit()
}

/// Replaces a file on a disk. Syncs the file and its directory, so the new file survives a crash of the machine.
///
/// # Errors
/// Fails if the kernel can't write or sync the file or its directory. The file then has either its old content or its new content, never a
/// mixture.
pub fn replace_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let filled = Pending::create(path, mode)?.fill(bytes)?;
    filled.0.file.as_file().sync_all()?;
    filled.commit()?;
    File::open(directory_of(path))?.sync_all()
}

/// Removes the temporary files of killed writers. Call this function before the first write to the directory, because it also removes the
/// temporary files of running writers.
///
/// # Errors
/// The directory can't be read, or a file can't be removed.
pub fn tidy(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_temporary(&entry.file_name().to_string_lossy()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file. Returns false if the file did not exist.
///
/// # Errors
/// The file exists and can't be removed.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A temporary file. Dropping this value removes the file if [`Filled::commit`] has not renamed it.
struct Pending {
    file: NamedTempFile,
    path: PathBuf,
}

/// A temporary file that contains the new content.
struct Filled(Pending);

impl Pending {
    fn create(path: &Path, mode: u32) -> io::Result<Pending> {
        let file = Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(directory_of(path))?;
        // Set the file's mode here and not in the builder, because the builder would apply the umask to the mode.
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        Ok(Pending { file, path: path.to_owned() })
    }

    fn fill(mut self, bytes: &[u8]) -> io::Result<Filled> {
        self.file.as_file_mut().write_all(bytes)?;
        Ok(Filled(self))
    }
}

impl Filled {
    fn commit(self) -> io::Result<()> {
        let Pending { file, path } = self.0;
        file.persist(path).map(drop).map_err(|failed| failed.error)
    }
}

#[cfg(test)]
mod tests;
