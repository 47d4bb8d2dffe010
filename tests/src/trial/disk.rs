//! A disk of its own for a journal, small enough to be filled and freed: a tmpfs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A mounted tmpfs, unmounted when this is dropped.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts an empty one of `mib` MiB at `path`, which is made.
    ///
    /// # Errors
    ///
    /// When this process may not mount.
    pub fn mount(path: &Path, mib: u64) -> Result<Disk> {
        fs::create_dir_all(path)?;
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={mib}m,mode=0700"))
            .arg("rtm-trial")
            .arg(path)
            .output()
            .context("start mount")?;
        ensure!(
            output.status.success(),
            "cannot mount a tmpfs, which takes root and CAP_SYS_ADMIN: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(Disk {
            path: path.to_path_buf(),
        })
    }

    /// Whether this process may mount.
    #[must_use]
    pub fn possible() -> bool {
        tempfile::tempdir().is_ok_and(|dir| Disk::mount(&dir.path().join("disk"), 1).is_ok())
    }

    /// Fills it to the last byte.
    ///
    /// # Errors
    ///
    /// When it cannot be written for another reason than that it is full.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        // Ever smaller pieces, so that nothing is left.
        for size in [1 << 20, 4 << 10, 1] {
            let piece = vec![0x5a; size];
            loop {
                match ballast.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("write the ballast"),
                }
            }
        }
        Ok(())
    }

    /// Frees what [`Disk::fill`] took.
    ///
    /// # Errors
    ///
    /// When the ballast cannot be removed.
    pub fn free(&self) -> Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Copies what is on it to `to`, to be looked at once the disk is gone.
    ///
    /// # Errors
    ///
    /// When something cannot be copied.
    pub fn save(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            if file.path() != self.ballast() && file.file_type()?.is_file() {
                fs::copy(file.path(), to.join(file.file_name()))?;
            }
        }
        Ok(())
    }

    /// Not a name that a journal uses.
    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a bridge that is just ending may have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Holds: a filled disk takes no byte, and a freed one does. Says so where nothing can be mounted.
    #[test]
    fn fills_and_frees() {
        if !Disk::possible() {
            // Past the capture of tests that pass.
            let _ = writeln!(
                io::stderr(),
                "trial: full disks are NOT TESTED, for this process may not mount a tmpfs"
            );
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let disk = Disk::mount(&path, 1).unwrap();
        fs::write(path.join("kept"), "kept").unwrap();
        disk.fill().unwrap();
        assert!(fs::write(path.join("more"), [0; 8192]).is_err());
        disk.save(&dir.path().join("saved")).unwrap();
        assert!(dir.path().join("saved/kept").exists());
        assert!(!dir.path().join("saved/ballast").exists());
        disk.free().unwrap();
        disk.free().unwrap();
        fs::write(path.join("more"), [0; 8192]).unwrap();
        drop(disk);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "unmounted");
    }
}
