# The platform's default lets the classic builder, which does not set BUILDPLATFORM, build this too.
FROM --platform=${BUILDPLATFORM:-linux} golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
# Without them the binary has the tag and the commit that .git names, if it is there; else it is "devel" of revision "unknown".
ARG VERSION
ARG REVISION
RUN if [ -z "$REVISION" ] && [ -f .git/HEAD ]; then \
      ref=$(sed -n 's/^ref: //p' .git/HEAD); \
      if [ -z "$ref" ]; then REVISION=$(cat .git/HEAD); \
      elif [ -f ".git/$ref" ]; then REVISION=$(cat ".git/$ref"); \
      else REVISION=$(sed -n "s|^\([0-9a-f]*\) $ref\$|\1|p" .git/packed-refs); fi; \
      # A tag lies in a file of its own, or in packed-refs; below an annotated one stands ^ and the commit.
      if [ -z "$VERSION" ] && [ -n "$REVISION" ]; then \
        VERSION=$({ grep -rlx "$REVISION" .git/refs/tags | sed 's|^.git/refs/tags/||'; \
          sed -n "/^$REVISION refs.tags/{s|.* refs/tags/||p;d}; /^^$REVISION/{x;p;d}; s|.* refs/tags/||; h" .git/packed-refs; } 2>/dev/null | sed 1q); \
      fi; \
    fi && \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION -X main.revision=$REVISION" -o /out/dragontls ./cmd/dragontls

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/dragontls /usr/local/bin/dragontls
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
EXPOSE 6380
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/dragontls", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/dragontls"]
