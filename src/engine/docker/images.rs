//! Which image a tag means, and that exactly this image is there.

use std::time::Duration;

use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder};
use futures_util::StreamExt;

use super::client::Fail;
use super::{Inner, auth};
use crate::engine::EngineError;
use crate::fleet::model::{Pull, Run};
use crate::fleet::names::Version;
use crate::text::Safe;

const INSPECT: Duration = Duration::from_secs(3);
const LIST: Duration = Duration::from_secs(5);
/// Longest question to a registry, through dockerd.
const REGISTRY: Duration = Duration::from_secs(20);
/// Longest pull, and longest silence in it.
const PULL: Duration = Duration::from_secs(600);
const PULL_SILENCE: Duration = Duration::from_secs(60);

impl Inner {
    pub(super) async fn resolve(&self, run: &Run, version: &Version) -> Result<Option<String>, EngineError> {
        let (repository, pull) = self.image(run)?;
        if pull != Pull::Always
            && let Some(local) = self.local(repository, version).await?
        {
            return Ok(Some(local));
        }
        if pull == Pull::Never { Ok(None) } else { self.ask_registry(repository, version).await }
    }

    /// Makes sure that the image is there; the name under which dockerd knows it by its digest.
    pub(super) async fn ensure(
        &self,
        run: &Run,
        version: &Version,
        digest: &str,
    ) -> Result<String, EngineError> {
        let (repository, pull) = self.image(run)?;
        if let Some(name) = self.named(repository, digest).await? {
            return Ok(name);
        }
        let tagged = self.inspect(&format!("{repository}:{version}")).await?;
        if let Some(other) = &tagged
            && pull != Pull::Always
            && digest_in(other, repository).is_none()
        {
            return Err(self.refused(&format!(
                "{repository}:{version} is another image here ({}), and came from no registry; wanted {digest}: \
                 load the same image on every host (docker save, docker load)",
                other.id.as_deref().unwrap_or("no id")
            )));
        }
        if pull == Pull::Never {
            return Err(self.refused(&format!(
                "{repository}@{digest} is not here and pull is \"never\": load the image on this host"
            )));
        }
        self.pull(repository, digest).await?;
        self.named(repository, digest).await?.ok_or_else(|| {
            self.refused(&format!(
                "{repository}@{digest} was pulled, yet is not here: is something removing images?"
            ))
        })
    }

    /// The versions of a repository that are here, newest first.
    pub(super) async fn versions(&self, run: &Run) -> Result<Vec<Version>, EngineError> {
        let (repository, _) = self.image(run)?;
        let docker = self.client.docker()?;
        let filters = std::collections::HashMap::from([("reference", vec![repository])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let images = self.client.call("list images", LIST, docker.list_images(Some(options))).await;
        let mut images = images.map_err(|e| e.at(&self.client))?;
        images.sort_by_key(|i| std::cmp::Reverse(i.created));
        let tags = images.iter().flat_map(|i| &i.repo_tags).filter_map(|tag| {
            let (name, tag) = tag.rsplit_once(':')?;
            (familiar(name) == familiar(repository)).then(|| tag.parse().ok())?
        });
        Ok(tags.collect())
    }

    fn image<'a>(&self, run: &'a Run) -> Result<(&'a str, Pull), EngineError> {
        match run {
            Run::Image { repository, pull, .. } => Ok((repository, *pull)),
            Run::Command { .. } => Err(self.refused(
                "a docker host cannot run a command: give the service an image, or the host a process engine",
            )),
        }
    }

    pub(super) fn refused(&self, text: &str) -> EngineError {
        EngineError::Refused(Safe::from(format!("{}: {text}", self.client.at())))
    }

    async fn inspect(&self, name: &str) -> Result<Option<ImageInspect>, EngineError> {
        let call = self.client.docker()?.inspect_image(name);
        self.client.find("look at an image", INSPECT, call).await.map_err(|e| e.at(&self.client))
    }

    /// What the tag means here: the registry's digest when it was pulled from there, else the image id.
    async fn local(&self, repository: &str, version: &Version) -> Result<Option<String>, EngineError> {
        let Some(image) = self.inspect(&format!("{repository}:{version}")).await? else { return Ok(None) };
        Ok(digest_in(&image, repository).or(image.id))
    }

    /// The name by which dockerd has this very content: `REPOSITORY@DIGEST`, or the image id.
    async fn named(&self, repository: &str, digest: &str) -> Result<Option<String>, EngineError> {
        let by_digest = format!("{repository}@{digest}");
        if self.inspect(&by_digest).await?.is_some() {
            return Ok(Some(by_digest));
        }
        let by_id = self.inspect(digest).await?;
        Ok(by_id.filter(|image| image.id.as_deref() == Some(digest)).map(|_| digest.to_owned()))
    }

    async fn ask_registry(&self, repository: &str, version: &Version) -> Result<Option<String>, EngineError> {
        let name = format!("{repository}:{version}");
        let docker = self.client.docker()?;
        let what = format!("ask the registry for {name}");
        let call = docker.inspect_registry_image(&name, auth::for_repository(repository).await);
        match self.client.find(&what, REGISTRY, call).await {
            Ok(found) => Ok(found.and_then(|f| f.descriptor.digest)),
            Err(Fail::Refused { text, .. }) if no_such_manifest(&text) => Ok(None),
            Err(e) => Err(e.at(&self.client)),
        }
    }

    async fn pull(&self, repository: &str, digest: &str) -> Result<(), EngineError> {
        let name = format!("{repository}@{digest}");
        let what = format!("pull {name}");
        let options = CreateImageOptionsBuilder::default().from_image(&name).build();
        let docker = self.client.docker()?;
        let mut steps = docker.create_image(Some(options), None, auth::for_repository(repository).await);
        let deadline = tokio::time::Instant::now() + PULL;
        loop {
            let silence = deadline.min(tokio::time::Instant::now() + PULL_SILENCE);
            let fail = match tokio::time::timeout_at(silence, steps.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(_))) => continue,
                Ok(Some(Err(e))) => Fail::of(&what, e),
                Err(_) => Fail::Unknown { what, text: "no progress for too long".to_owned() },
            };
            return Err(match fail {
                Fail::Refused { text, status, .. } if status == 404 || no_such_manifest(&text) => {
                    self.refused(&format!(
                        "{name} is neither here nor in its registry ({text}); if it never was pushed, load the \
                         image on this host (docker save, docker load)"
                    ))
                }
                other => other.at(&self.client),
            });
        }
    }
}

/// The registry's digest that the image has for `repository`.
fn digest_in(image: &ImageInspect, repository: &str) -> Option<String> {
    image.repo_digests.iter().flatten().find_map(|entry| {
        let (name, digest) = entry.split_once('@')?;
        (familiar(name) == familiar(repository)).then(|| digest.to_owned())
    })
}

fn no_such_manifest(text: &str) -> bool {
    text.contains("manifest unknown") || text.contains("name unknown") || text.contains("not found")
}

/// The short name of a repository, as dockerd prints it: Docker Hub's own prefixes are left out.
pub(super) fn familiar(repository: &str) -> &str {
    let name = repository.strip_prefix("index.docker.io/").unwrap_or(repository);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_counts_only_for_its_own_repository() {
        let image = ImageInspect {
            repo_digests: Some(vec!["mirror:5000/nginx@sha256:aa".into(), "nginx@sha256:bb".into()]),
            ..ImageInspect::default()
        };
        assert_eq!(digest_in(&image, "docker.io/library/nginx").as_deref(), Some("sha256:bb"));
        assert_eq!(digest_in(&image, "mirror:5000/nginx").as_deref(), Some("sha256:aa"));
        assert_eq!(digest_in(&image, "other/nginx"), None);
    }
}
