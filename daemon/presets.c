/* SPDX-License-Identifier: MIT */
#include "daemon/presets.h"

#include <string.h>

/* What agents talk to. Only names of which nobody else can have a part. */
#define MODEL_APIS                                                                                \
    "# Claude Code\n"                                                                             \
    "allow api.anthropic.com:443             # models\n"                                          \
    "allow console.anthropic.com:443         # log in, refresh of tokens\n"                       \
    "allow platform.claude.com:443           # log in, refresh of tokens (newer releases)\n"      \
    "allow claude.ai:443                     # log in with a subscription\n"                      \
    "# Gemini CLI\n"                                                                              \
    "allow generativelanguage.googleapis.com:443   # models, by API key\n"                        \
    "allow cloudcode-pa.googleapis.com:443   # models, by Google account\n"                       \
    "allow oauth2.googleapis.com:443         # refresh of tokens\n"                               \
    "# GitHub Copilot CLI\n"                                                                      \
    "allow api.githubcopilot.com:443         # models\n"                                          \
    "allow *.githubcopilot.com:443           # models: api.individual, api.business and others\n" \
    "allow api.github.com:443                # tokens, and the agent's view of repositories\n"    \
    "# Codex CLI\n"                                                                               \
    "allow api.openai.com:443                # models\n"                                          \
    "allow auth.openai.com:443               # log in, refresh of tokens\n"                       \
    "allow chatgpt.com:443                   # models with a subscription\n"

#define DEVELOPMENT                                                                               \
    "# Code hosts, by HTTPS and ssh\n"                                                            \
    "allow github.com:443                    # git\n"                                             \
    "allow github.com:22                     # git by ssh\n"                                      \
    "allow ssh.github.com:443                # git by ssh where 22 is closed\n"                   \
    "allow codeload.github.com:443           # archives\n"                                        \
    "allow raw.githubusercontent.com:443     # single files\n"                                    \
    "allow objects.githubusercontent.com:443 # releases, large files\n"                           \
    "allow release-assets.githubusercontent.com:443   # releases\n"                               \
    "allow ghcr.io:443                       # container images\n"                                \
    "allow pkg-containers.githubusercontent.com:443   # their layers\n"                           \
    "allow gitlab.com:443                    # git\n"                                             \
    "allow gitlab.com:22                     # git by ssh\n"                                      \
    "allow bitbucket.org:443                 # git\n"                                             \
    "allow bitbucket.org:22                  # git by ssh\n"                                      \
    "# Packages of systems\n"                                                                     \
    "allow deb.debian.org:80                 # Debian: signed, so plain HTTP is what apt uses\n"  \
    "allow deb.debian.org:443                # the same\n"                                        \
    "allow security.debian.org:80            # Debian's security updates\n"                       \
    "allow security.debian.org:443           # the same\n"                                        \
    "allow archive.ubuntu.com:80             # Ubuntu\n"                                          \
    "allow security.ubuntu.com:80            # Ubuntu's security updates\n"                       \
    "allow dl-cdn.alpinelinux.org:443        # Alpine\n"                                          \
    "# Packages of languages\n"                                                                   \
    "allow registry.npmjs.org:443            # npm\n"                                             \
    "allow registry.yarnpkg.com:443          # yarn\n"                                            \
    "allow nodejs.org:443                    # headers for native modules\n"                      \
    "allow pypi.org:443                      # Python: index\n"                                   \
    "allow files.pythonhosted.org:443        # Python: files\n"                                   \
    "allow crates.io:443                     # Rust: API\n"                                       \
    "allow index.crates.io:443               # Rust: index\n"                                     \
    "allow static.crates.io:443              # Rust: files\n"                                     \
    "allow static.rust-lang.org:443          # rustup\n"                                          \
    "allow proxy.golang.org:443              # Go: modules\n"                                     \
    "allow sum.golang.org:443                # Go: checksums\n"                                   \
    "allow go.dev:443                        # Go: toolchains\n"                                  \
    "allow dl.google.com:443                 # Go: files of toolchains\n"                         \
    "allow rubygems.org:443                  # Ruby\n"                                            \
    "allow index.rubygems.org:443            # Ruby: index\n"                                     \
    "allow repo.maven.apache.org:443         # Java\n"                                            \
    "allow repo1.maven.org:443               # Java\n"                                            \
    "allow services.gradle.org:443           # Gradle\n"                                          \
    "allow plugins.gradle.org:443            # Gradle\n"                                          \
    "# Container images\n"                                                                        \
    "allow registry-1.docker.io:443          # Docker Hub\n"                                      \
    "allow auth.docker.io:443                # its tokens\n"                                      \
    "allow production.cloudflare.docker.com:443    # its layers\n"

static const struct preset presets[] = {
    { "none", "nothing: a network without a way out", "# Nothing.\n" },
    { "agent", "model APIs of the known coding agents, nothing else", MODEL_APIS },
    { "dev", "agent, and package registries and code hosts", MODEL_APIS DEVELOPMENT },
    { "open", "all of the Internet; private networks, metadata services and this host stay closed",
      "# Special addresses are closed all the same: docs/POLICY.md, \"The decision\".\n"
      "allow 0.0.0.0/0/tcp\n"
      "allow 0.0.0.0/0/udp\n" },
};

const struct preset *preset_find(const char *name)
{
    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++)
        if (strcmp(presets[i].name, name) == 0)
            return &presets[i];
    return NULL;
}

const struct preset *preset_all(size_t *ret_n)
{
    *ret_n = sizeof(presets) / sizeof(presets[0]);
    return presets;
}
