//! The folder or bucket in which replicas leave their checkpoints. A request takes a bounded time: an outage must not become a
//! replica's own.

use std::future::Future;
use std::time::Duration;

use kd_runtime::error::Exit;
use kd_runtime::{Refusal, Result};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use url::Url;

/// What a request may take, with what the client tries again, and what more for each MiB; then it has failed.
const MOST: Duration = Duration::from_secs(30);
const MOST_PER_MIB: Duration = Duration::from_secs(1);

/// A place that objects are written to and read from, one request after another.
pub struct Store {
    store: Box<dyn ObjectStore>,
    folder: Path,
    /// Where it is a folder of this machine.
    here: Option<std::path::PathBuf>,
    /// What a request may take; [`MOST`] but in tests.
    pub(super) most: Duration,
    /// Until it is dropped.
    runtime: Option<Runtime>,
}

/// An object as it is listed.
pub struct Object {
    /// Where it is.
    pub path: Path,
    /// Its size.
    pub bytes: u64,
}

/// What is said of `--exchange`.
pub fn refuse(at: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Refusal {
    Refusal::new(format!("--exchange {at}"), expected, found, "name a folder or bucket that can be written")
}

impl Store {
    /// The part of this name of a folder, which is made if it is missing, or of the address of a bucket. Refuses what is neither.
    pub fn open(at: &str, part: &str) -> Result<Self> {
        let url = if at.contains("://") {
            Url::parse(at).map_err(|error| refuse(at, "a folder or an address", error))?
        } else {
            std::fs::create_dir_all(at).map_err(|error| refuse(at, "a folder that can be made", error))?;
            let whole = std::fs::canonicalize(at).map_err(|error| refuse(at, "a folder", error))?;
            Url::from_directory_path(&whole).map_err(|()| refuse(at, "a folder with an absolute path", "another"))?
        };
        let variables =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let options = variables.map(|(key, value)| (key.to_ascii_lowercase(), value));
        let known = if cfg!(feature = "cloud") {
            "a folder or an address of file, s3, gs, az or http"
        } else {
            "a folder (buckets need a build with --features cloud)"
        };
        let (store, folder) = object_store::parse_url_opts(&url, options).map_err(|error| refuse(at, known, error))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| refuse(at, "a thread for it", error).with_exit(Exit::Lacking))?;
        let here = url.to_file_path().ok().filter(|_| url.scheme() == "file").map(|whole| whole.join(part));
        Ok(Self { store, folder: folder.join(part), here, most: MOST, runtime: Some(runtime) })
    }

    /// Waits for a request that moves so many bytes, but not for ever.
    fn wait<T>(&self, bytes: u64, request: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
        let most = self.most + MOST_PER_MIB * u32::try_from(bytes >> 20).unwrap_or(u32::MAX >> 1);
        let late = |_| {
            let source = format!("no answer within {} s", most.as_secs()).into();
            Err(Error::Generic { store: "exchange", source })
        };
        let runtime = self.runtime.as_ref().expect("there until it is dropped");
        runtime.block_on(async { timeout(most, request).await }).unwrap_or_else(late)
    }

    /// The objects of a folder; none where there is no such folder.
    pub fn list(&self, folder: &str) -> object_store::Result<Vec<Object>> {
        let listed = self.wait(0, self.store.list_with_delimiter(Some(&self.folder.clone().join(folder))))?;
        Ok(listed.objects.into_iter().map(|object| Object { path: object.location, bytes: object.size }).collect())
    }

    /// Creates an object and says where it is. Where one of the name is there it has the same bytes, by whose hash it is named.
    pub fn put(&self, folder: &str, name: &str, bytes: Vec<u8>) -> object_store::Result<Path> {
        let (path, bytes) = (self.folder.clone().join(folder).join(name), PutPayload::from(bytes));
        let size = bytes.content_length() as u64;
        let created = self.wait(size, self.store.put_opts(&path, bytes.clone(), PutMode::Create.into()));
        match created {
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(path),
            // WebDAV cannot create, nor can a folder whose file system has no links.
            Err(error) if matches!(error, Error::NotImplemented { .. }) || self.here.is_some() => {
                self.wait(size, self.store.put(&path, bytes)).map(|_| path)
            }
            Err(error) => Err(error),
        }
    }

    /// The bytes of an object, of so many as it was listed with; `None` if it is there no more.
    pub fn get(&self, path: &Path, size: u64) -> object_store::Result<Option<Vec<u8>>> {
        match self.wait(size, async { self.store.get(path).await?.bytes().await }) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes an object; somebody else may have cleaned up. One that stays is found when its folder is listed the next time.
    pub fn remove(&self, path: &Path) {
        let _ = self.wait(0, self.store.delete(path));
    }

    /// Removes what a kill left of objects that were being written to a folder: `NAME#NUMBER` on this machine, and nothing in a
    /// bucket.
    pub fn sweep(&self, folder: &str) {
        let Some(here) = self.here.as_ref().map(|here| here.join(folder)) else { return };
        let sweep = move || {
            let files = std::fs::read_dir(here).into_iter().flatten().flatten();
            let halves = files.filter(|file| file.file_name().to_string_lossy().contains('#'));
            halves.for_each(|file| drop(std::fs::remove_file(file.path())));
        };
        let _ = self.wait(0, async { Ok(spawn_blocking(sweep).await) });
    }
}

impl Drop for Store {
    /// A thread that waits for a folder which hangs is left behind.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
