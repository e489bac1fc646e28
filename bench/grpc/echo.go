// Answers every call with what it was asked, after so many milliseconds: echo PORT DELAY-MS.
package main

import (
	"log"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/net/context"
	"google.golang.org/grpc"
)

// A message is its bytes on the wire.
type raw struct{}

func (raw) Marshal(v interface{}) ([]byte, error) { return *v.(*[]byte), nil }

func (raw) Unmarshal(data []byte, v interface{}) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (raw) String() string { return "raw" }

func main() {
	if len(os.Args) != 3 {
		log.Fatal("echo PORT DELAY-MS")
	}
	delay, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	infer := func(_ interface{}, _ context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor) (interface{}, error) {
		var message []byte
		if err := decode(&message); err != nil {
			return nil, err
		}
		time.Sleep(time.Duration(delay) * time.Millisecond)
		return &message, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.CustomCodec(raw{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "inference.GRPCInferenceService",
		HandlerType: (*interface{})(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "ModelInfer", Handler: infer}},
	}, struct{}{})
	log.Fatal(server.Serve(listener))
}
