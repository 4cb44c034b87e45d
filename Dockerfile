# The platform's default lets the classic builder, which does not set BUILDPLATFORM, build this too.
FROM --platform=${BUILDPLATFORM:-linux} golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
# Without it the binary calls itself "devel".
ARG VERSION
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/dragontls ./cmd/dragontls

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/dragontls /usr/local/bin/dragontls
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
EXPOSE 6380
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/dragontls", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/dragontls"]
