module macp-auth-go-example

go 1.22
