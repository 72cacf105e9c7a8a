//! Where this machine's key, its list of peers and what it remembers of syncs are kept.

use std::ffi::OsString;
use std::path::{self, PathBuf};

use etcetera::{AppStrategy, AppStrategyArgs};

/// The directories of this user's shiplane. Nothing is created by finding them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    config: PathBuf,
    data: PathBuf,
}

/// There is no place to keep anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    #[error("there is no home directory to keep the key of this machine in")]
    NoHomeDirectory,
    #[error("the current directory is not known: {0}")]
    NoCurrentDirectory(std::io::Error),
}

impl Home {
    /// All in `$SHIPLANE_HOME` if that is set and not empty. Else the peers file is with the
    /// user's other configuration, and the key with the data: configuration is what people copy
    /// between machines and publish.
    pub(crate) fn locate(shiplane_home: Option<OsString>) -> Result<Self, HomeError> {
        if let Some(dir) = shiplane_home.filter(|dir| !dir.is_empty()) {
            let dir = path::absolute(PathBuf::from(dir)).map_err(HomeError::NoCurrentDirectory)?;
            return Ok(Self { config: dir.clone(), data: dir });
        }
        let strategy = etcetera::choose_app_strategy(AppStrategyArgs {
            top_level_domain: String::new(),
            author: String::new(),
            app_name: "shiplane".to_owned(),
        })
        .map_err(|_| HomeError::NoHomeDirectory)?;
        Ok(Self { config: strategy.config_dir(), data: strategy.data_dir() })
    }

    /// The file of this machine's private key.
    pub(crate) fn identity_path(&self) -> PathBuf {
        self.data.join("identity")
    }

    /// The directory of what is remembered of syncs.
    pub(crate) fn sync_path(&self) -> PathBuf {
        self.data.join("sync")
    }

    /// The file of the standing peers.
    pub(crate) fn peers_path(&self) -> PathBuf {
        self.config.join("peers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_variable_moves_everything() {
        let home = Home::locate(Some("/srv/ship".into())).unwrap();
        assert_eq!(home.identity_path(), PathBuf::from("/srv/ship/identity"));
        assert_eq!(home.peers_path(), PathBuf::from("/srv/ship/peers"));
    }

    #[test]
    fn a_relative_home_stays_where_it_was_said() {
        let home = Home::locate(Some("state".into())).unwrap();
        assert!(home.identity_path().is_absolute());
    }

    #[test]
    fn an_empty_variable_is_none() {
        // Which directories these are depends on the machine; that both cases agree does not.
        let unset = Home::locate(None).ok();
        assert_eq!(Home::locate(Some(OsString::new())).ok(), unset);
        assert_ne!(unset.map(|home| home.data), Some(PathBuf::new()));
    }
}
