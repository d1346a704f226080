package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// The codes of errors (docs/signer-protocol.md, "Errors").
const (
	unavailable    = 1
	misconfigured  = 3
	unknownKid     = 4
	fault          = 5
	methodNotFound = -32601
	invalidParams  = -32602
)

const maxFrameBytes = 8 * 1024 * 1024

// Error is an error that the service may see. The message goes to its log, and must not contain a secret.
// The reason is public: some words of lower-case letters, with hyphens.
type Error struct {
	Code    int        `json:"code"`
	Message string     `json:"message"`
	Data    *errorData `json:"data,omitempty"`
}

type errorData struct {
	Reason string `json:"reason"`
}

func (e *Error) Error() string { return e.Message }

// newError returns an error with a reason; "" is the usual reason of the code.
func newError(code int, reason, message string) *Error {
	if reason == "" {
		return &Error{code, message, nil}
	}
	return &Error{code, message, &errorData{reason}}
}

type request struct {
	ID     *int64          `json:"id"` // nil in a notification
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

type reply struct {
	Version string `json:"jsonrpc"`
	ID      int64  `json:"id"`
	Result  any    `json:"result,omitempty"`
	Error   *Error `json:"error,omitempty"`
}

// A method returns the result of a request, or an error. The context ends when nobody waits for the result.
type method func(ctx context.Context, params json.RawMessage) (any, error)

// with returns a method whose parameters are decoded to type P.
func with[P any](call func(context.Context, P) (any, error)) method {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var params P
		if err := json.Unmarshal(raw, &params); err != nil {
			return nil, newError(invalidParams, "", "the parameters are not those of this method")
		}
		return call(ctx, params)
	}
}

// server answers the requests of one connection.
type server struct {
	methods map[string]method
	out     io.Writer
	writing sync.Mutex // of out: frames must not mix

	mutex   sync.Mutex // of cancels
	cancels map[int64]context.CancelFunc
}

// serve answers requests until the connection ends. Each request has a goroutine of its own, so a slow one
// delays no other, and no ping. The service limits their number.
func serve(connection io.ReadWriter, methods map[string]method) error {
	s := &server{methods: methods, out: connection, cancels: map[int64]context.CancelFunc{}}
	in := bufio.NewReader(connection)
	for {
		body, err := readFrame(in)
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var call request
		if err := json.Unmarshal(body, &call); err != nil {
			return errors.New("a frame is no JSON-RPC request")
		}
		if call.Method == "cancel" {
			s.cancel(call.Params)
		} else if call.ID != nil {
			ctx, cancel := context.WithCancel(context.Background())
			s.mutex.Lock()
			s.cancels[*call.ID] = cancel
			s.mutex.Unlock()
			go s.answer(ctx, *call.ID, call)
		}
	}
}

func (s *server) cancel(raw json.RawMessage) {
	var params struct {
		ID int64 `json:"id"`
	}
	if json.Unmarshal(raw, &params) != nil {
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if cancel, running := s.cancels[params.ID]; running {
		cancel()
	}
}

func (s *server) answer(ctx context.Context, id int64, call request) {
	answer := reply{Version: "2.0", ID: id}
	result, err := s.result(ctx, call)
	if err == nil {
		answer.Result = result
	} else if !errors.As(err, &answer.Error) {
		// Its text may contain a secret.
		answer.Error = newError(fault, "", fmt.Sprintf("%s failed with a %T", call.Method, err))
	}
	s.mutex.Lock()
	s.cancels[id]()
	delete(s.cancels, id)
	s.mutex.Unlock()
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = writeFrame(s.out, answer) // if the service is gone, serve sees it
}

func (s *server) result(ctx context.Context, call request) (any, error) {
	method, exists := s.methods[call.Method]
	if !exists {
		return nil, newError(methodNotFound, "", "there is no such method")
	}
	return method(ctx, call.Params)
}

func readFrame(in io.Reader) ([]byte, error) {
	var length uint32
	if err := binary.Read(in, binary.BigEndian, &length); err != nil {
		return nil, err
	}
	if length > maxFrameBytes {
		return nil, fmt.Errorf("a frame of %d bytes", length)
	}
	body := make([]byte, length)
	_, err := io.ReadFull(in, body)
	return body, err
}

func writeFrame(out io.Writer, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = out.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}
