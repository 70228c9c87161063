# The image, for those who build it with a container engine: the same files and settings as in the archive that `make image`
# writes without one, and from the same folders. So run that first, with Go, which compiles for both platforms wherever it runs:
#
#   make image
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v1.2.3 --tag REGISTRY/shadowcat-cluster:v1.2.3 .
#
# Nothing is run in it: there is no shell, no package manager, and nothing to emulate.
FROM scratch

# The certificate authorities, and a name for the user.
COPY bin/image/common/ /

# Set by the engine.
ARG TARGETARCH
COPY bin/image/${TARGETARCH}/ /

ARG VERSION=dev
ARG COMMIT=""
ARG CREATED="1970-01-01T00:00:00Z"
LABEL org.opencontainers.image.title="Shadowcat Cluster" \
      org.opencontainers.image.description="Run more than one replica of an MCP proxy without losing a session" \
      org.opencontainers.image.source="https://github.com/tapwire/shadowcat-cluster" \
      org.opencontainers.image.documentation="https://github.com/tapwire/shadowcat-cluster#readme" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${CREATED}"

USER 65532:65532
WORKDIR /
EXPOSE 8081 9081
ENTRYPOINT ["/usr/bin/shadowcat-cluster"]
# Arguments of your own replace these. Settings may also be variables, SHADOWCAT_UPSTREAM and the like, or a mounted file.
CMD ["serve", "--listen", ":8081", "--admin-listen", ":9081"]
