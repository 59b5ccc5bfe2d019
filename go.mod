module github.com/undertone-fl/undertone

go 1.26.0

require (
	github.com/google/differential-privacy/go/v2 v2.1.0
	gonum.org/v1/gonum v0.17.0
)

require github.com/golang/glog v1.1.1 // indirect
