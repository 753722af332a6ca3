/* kronosnet as a measured system: a sender and a receiver over one UDP link.
 *
 *   knet send|receive LOCAL REMOTE SIZE none|MODEL,CIPHER,HASH
 *
 * It obeys lines as the workers of overlan-bench do (src/worker.rs): `mark`, `stop`. */
#include <arpa/inet.h>
#include <errno.h>
#include <libknet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PORT 7500

static _Atomic uint64_t messages, bytes, expected;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void check(int result, const char *what) {
    if (result != 0) fail(what);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void *obey(void *unused) {
    char line[16];
    double began = now();
    uint64_t before[3] = {0, 0, 0};
    (void)unused;
    while (fgets(line, sizeof line, stdin)) {
        uint64_t after[3] = {messages, bytes, expected};
        if (strcmp(line, "mark\n") == 0) {
            began = now();
            memcpy(before, after, sizeof before);
        } else if (strcmp(line, "stop\n") == 0) {
            printf("result {\"seconds\":%f,\"messages\":%llu,\"bytes\":%llu,\"expected\":%llu}\n", now() - began,
                   (unsigned long long)(after[0] - before[0]), (unsigned long long)(after[1] - before[1]),
                   (unsigned long long)(after[2] - before[2]));
            fflush(stdout);
            _exit(0);
        }
    }
    _exit(1);
}

static void on_socket(void *data, int fd, int8_t channel, uint8_t tx_rx, int error, int number) {
    (void)data, (void)fd, (void)channel, (void)tx_rx, (void)error, (void)number;
}

static void wait_for(int fd, short events) {
    struct pollfd poller = {.fd = fd, .events = events};
    if (errno != EAGAIN && errno != EINTR) fail("knet_send or knet_recv");
    poll(&poller, 1, 1000);
}

static struct sockaddr_storage address(const char *text) {
    struct sockaddr_storage storage;
    struct sockaddr_in *in = (struct sockaddr_in *)&storage;
    memset(&storage, 0, sizeof storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(PORT);
    if (inet_pton(AF_INET, text, &in->sin_addr) != 1) fail(text);
    return storage;
}

static knet_handle_t connect_to(int sending, const char *local, const char *remote, const char *crypto) {
    knet_node_id_t own = sending ? 1 : 2, other = sending ? 2 : 1;
    struct sockaddr_storage from = address(local), to = address(remote);
    knet_handle_t knet = knet_handle_new(own, STDERR_FILENO, KNET_LOG_ERR);
    struct knet_handle_crypto_cfg config;
    char model[16], cipher[16], hash[16];
    if (!knet) fail("knet_handle_new");
    check(knet_handle_enable_sock_notify(knet, NULL, on_socket), "knet_handle_enable_sock_notify");
    check(knet_host_add(knet, other), "knet_host_add");
    check(knet_link_set_config(knet, other, 0, KNET_TRANSPORT_UDP, &from, &to, 0), "knet_link_set_config");
    if (sscanf(crypto, "%15[^,],%15[^,],%15s", model, cipher, hash) == 3) {
        memset(&config, 0, sizeof config);
        strcpy(config.crypto_model, model);
        strcpy(config.crypto_cipher_type, cipher);
        strcpy(config.crypto_hash_type, hash);
        memset(config.private_key, 7, KNET_MIN_KEY_LEN);
        config.private_key_len = KNET_MIN_KEY_LEN;
        check(knet_handle_crypto_set_config(knet, &config, 1), "knet_handle_crypto_set_config");
        check(knet_handle_crypto_use_config(knet, 1), "knet_handle_crypto_use_config");
    }
    check(knet_link_set_enable(knet, other, 0, 1), "knet_link_set_enable");
    return knet;
}

/* Until the link is up and its path MTU was discovered. */
static void wait_for_link(knet_handle_t knet, knet_node_id_t other) {
    struct knet_link_status status;
    unsigned int mtu = 0;
    memset(&status, 0, sizeof status);
    while (!status.connected || mtu == 0) {
        usleep(50000);
        check(knet_link_get_status(knet, other, 0, &status, sizeof status), "knet_link_get_status");
        check(knet_handle_pmtud_get(knet, &mtu), "knet_handle_pmtud_get");
    }
    usleep(500000);
}

int main(int count, char **argument) {
    static unsigned char buffer[KNET_MAX_PACKET_SIZE];
    int sending, fd = 0;
    int8_t channel = 0;
    size_t size;
    uint64_t sequence = 0;
    pthread_t thread;
    knet_handle_t knet;
    if (count != 6) {
        fprintf(stderr, "usage: knet send|receive LOCAL REMOTE SIZE none|MODEL,CIPHER,HASH\n");
        return 2;
    }
    sending = strcmp(argument[1], "send") == 0;
    size = strtoul(argument[4], NULL, 10);
    knet = connect_to(sending, argument[2], argument[3], argument[5]);
    check(knet_handle_add_datafd(knet, &fd, &channel), "knet_handle_add_datafd");
    check(knet_handle_setfwd(knet, 1), "knet_handle_setfwd");
    if (sending) wait_for_link(knet, 2);
    puts("ready");
    fflush(stdout);
    check(pthread_create(&thread, NULL, obey, NULL), "pthread_create");
    for (;;) {
        ssize_t length;
        if (sending) {
            for (int byte = 0; byte < 8; byte++) buffer[byte] = (unsigned char)(sequence >> (56 - 8 * byte));
            length = knet_send(knet, (char *)buffer, size, channel);
            if (length == (ssize_t)size) sequence++;
            else if (length < 0) wait_for(fd, POLLOUT);
            continue;
        }
        length = knet_recv(knet, (char *)buffer, sizeof buffer, channel);
        if (length < 0) wait_for(fd, POLLIN);
        if (length >= 8) {
            uint64_t number = 0;
            for (int byte = 0; byte < 8; byte++) number = number << 8 | buffer[byte];
            messages += 1;
            bytes += (uint64_t)length;
            if (number + 1 > expected) expected = number + 1;
        }
    }
}
