//! Paths of this machine's key, list of peers and sync state.

use std::{
    ffi::OsString,
    path::{self, Path, PathBuf},
};

use etcetera::{AppStrategy, AppStrategyArgs};
use shiplane_transport::Identity;

use crate::error::{Cause, Error, HomeError};

/// The places that a client or a server uses: those given explicitly, else the usual ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct HomePaths {
    pub(crate) home: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) peers_file: Option<PathBuf>,
    /// Whether the key is a fresh one that is stored nowhere.
    pub(crate) has_fresh_key: bool,
}

/// The setters that a client and a server have in common. Their builders have the fields `places`, a [`HomePaths`], and
/// `is_foreground`.
macro_rules! machine_setters {
    () => {
        /// Keeps the key, the list of peers, tickets and the state of syncs in this directory.
        pub fn home(mut self, dir: impl Into<PathBuf>) -> Self {
            self.places.home = Some(dir.into());
            self
        }

        /// Keeps the key in this file, which is created if it does not exist.
        pub fn key_file(mut self, path: impl Into<PathBuf>) -> Self {
            self.places.key_file = Some(path.into());
            self
        }

        /// Reads the list of peers from this file.
        pub fn peers_file(mut self, path: impl Into<PathBuf>) -> Self {
            self.places.peers_file = Some(path.into());
            self
        }

        /// Whether transfers compete with the program's other threads on equal terms. By default they run with the
        /// lowest priority, so that calls beside a transfer are answered without delay; for a program that only
        /// transfers, `true` is faster on a busy machine.
        pub fn foreground(mut self, is_foreground: bool) -> Self {
            self.is_foreground = is_foreground;
            self
        }
    };
}

pub(crate) use machine_setters;

impl HomePaths {
    /// Loads the key, or creates it. Blocking.
    pub(crate) fn identity(&self) -> Result<Identity, Error> {
        if self.has_fresh_key {
            return Ok(Identity::generate().map_err(Cause::from)?);
        }
        let path = match &self.key_file {
            Some(path) => path.clone(),
            None => self.home()?.data.join("identity"),
        };
        tracing::info!(path = %path.display(), "the key of this machine");
        Ok(Identity::load_or_create(&path).map_err(Cause::from)?)
    }

    /// The file of the known peers.
    pub(crate) fn peers_path(&self) -> Result<PathBuf, Error> {
        match &self.peers_file {
            Some(path) => Ok(path.clone()),
            None => Ok(self.home()?.config.join("peers")),
        }
    }

    /// The file of the tickets that were given out.
    pub(crate) fn tickets_path(&self) -> Result<PathBuf, Error> {
        Ok(self.home()?.data.join("tickets"))
    }

    /// The directory of the codes that were proven.
    pub(crate) fn received_path(&self) -> Result<PathBuf, Error> {
        Ok(self.home()?.data.join("received"))
    }

    /// The directory of the state of syncs.
    pub(crate) fn sync_path(&self) -> Result<PathBuf, Error> {
        Ok(self.home()?.data.join("sync"))
    }

    fn home(&self) -> Result<Home, Error> {
        let located = match &self.home {
            Some(dir) => Home::at(dir),
            None => Home::locate(std::env::var_os("SHIPLANE_HOME")),
        };
        located.map_err(|error| Cause::Home(error).into())
    }
}

/// The directories of this user's shiplane. Nothing is created by finding them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Home {
    config: PathBuf,
    data: PathBuf,
}

impl Home {
    /// All in `$SHIPLANE_HOME` if that is set and not empty. Else the peers file is with the
    /// user's other configuration, and the key with the data: configuration is what people copy
    /// between machines and publish.
    fn locate(shiplane_home: Option<OsString>) -> Result<Self, HomeError> {
        if let Some(dir) = shiplane_home.filter(|dir| !dir.is_empty()) {
            return Self::at(Path::new(&dir));
        }
        let strategy = etcetera::choose_app_strategy(AppStrategyArgs {
            top_level_domain: String::new(),
            author: String::new(),
            app_name: "shiplane".to_owned(),
        })
        .map_err(|_| HomeError::NoHomeDirectory)?;
        Ok(Self { config: strategy.config_dir(), data: strategy.data_dir() })
    }

    fn at(dir: &Path) -> Result<Self, HomeError> {
        let dir = path::absolute(dir).map_err(HomeError::NoCurrentDirectory)?;
        Ok(Self { config: dir.clone(), data: dir })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shiplane_home_moves_everything() {
        let home = Home::locate(Some("/srv/ship".into())).unwrap();
        let dir = PathBuf::from("/srv/ship");
        assert_eq!(home, Home { config: dir.clone(), data: dir });
    }

    #[test]
    fn a_relative_home_becomes_absolute() {
        let home = Home::locate(Some("state".into())).unwrap();
        assert!(home.data.is_absolute());
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        // Which directories these are depends on the machine; that both cases agree does not.
        let unset = Home::locate(None).ok();
        assert_eq!(Home::locate(Some(OsString::new())).ok(), unset);
        assert_ne!(unset.map(|home| home.data), Some(PathBuf::new()));
    }

    #[test]
    fn explicit_files_need_no_home() {
        let places = HomePaths {
            home: Some("/srv/ship".into()),
            peers_file: Some("/etc/peers".into()),
            ..HomePaths::default()
        };
        assert_eq!(places.peers_path().unwrap(), PathBuf::from("/etc/peers"));
        assert_eq!(places.sync_path().unwrap(), PathBuf::from("/srv/ship/sync"));
    }
}
