# Bobbin's image. `make image` first puts the executables into target/image/<architecture>.
# `cargo xtask image` packs the same layer without Docker. The chart runs /bobbin-all, and the agent installs /bobbin.
FROM scratch
ARG TARGETARCH
# One COPY makes one layer. The mode does not depend on the umask of the build.
COPY --chmod=0755 target/image/${TARGETARCH}/ /
ENV PATH=/bin:/
WORKDIR /
ENTRYPOINT ["/bobbin-all"]
